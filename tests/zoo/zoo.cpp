// Ways to crash and to hang, one function each. Called from Python by ctypes.

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#define EXPORT extern "C" __attribute__((noinline, visibility("default")))

using Function = void (*)();

namespace {

volatile int sink;

template <typename Value>
Value hidden(Value value) {  // from the optimiser
    volatile Value copy = value;
    return copy;
}

void *run(void *function) {
    reinterpret_cast<Function>(function)();
    return nullptr;
}

}  // namespace

EXPORT void null_dereference() { *hidden<volatile int *>(nullptr) = 1; }

EXPORT void read_wild_pointer() {
    sink = *hidden(reinterpret_cast<int *>(static_cast<std::uintptr_t>(0xdead000beef)));
}

EXPORT void read_non_canonical() {
    sink = *hidden(reinterpret_cast<int *>(static_cast<std::uintptr_t>(0xdeadbeefdeadbeef)));
}

EXPORT void call_abort() {
    std::abort();
    sink = 1;
}

EXPORT void double_free() {
    void *memory = hidden(std::malloc(100));
    std::free(memory);
    std::free(hidden(memory));
    sink = 1;
}

EXPORT void throw_uncaught() {
    throw std::runtime_error("nobody catches this");
}

EXPORT void call_null_pointer() {
    hidden<Function>(nullptr)();
    sink = 1;
}

EXPORT void illegal_instruction() {
    __builtin_trap();
}

EXPORT void divide_by_zero() { sink = hidden(1) / hidden(0); }

EXPORT int overflow_stack(int depth) {
    volatile char room[512];
    room[0] = static_cast<char>(depth);
    int below = overflow_stack(depth + 1);
    return below + room[0];
}

EXPORT void kill_itself() {
    kill(getpid(), SIGSEGV);
    sink = 1;
}

EXPORT void spin() {
    for (;;) sink = sink + 1;
}

EXPORT void deadlock() {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    pthread_mutex_lock(&mutex);
    sink = 1;
}

namespace zoo {
// Its name is worth demangling.
template <typename Value>
__attribute__((noinline)) void write_through(Value *pointer) {
    *const_cast<volatile Value *>(pointer) = Value();
}
}  // namespace zoo

EXPORT void crash_in_template() {
    zoo::write_through<int>(hidden<int *>(nullptr));
    sink = 1;
}

EXPORT void in_pthread(Function function) {
    pthread_t thread;
    pthread_create(&thread, nullptr, run, reinterpret_cast<void *>(function));
    pthread_join(thread, nullptr);
}

EXPORT void in_two_pthreads(Function first, Function second) {
    pthread_t threads[2];
    pthread_create(&threads[0], nullptr, run, reinterpret_cast<void *>(first));
    pthread_create(&threads[1], nullptr, run, reinterpret_cast<void *>(second));
    for (auto &thread : threads) pthread_join(thread, nullptr);
}

// What read(2) says, for those that ask whether it was disturbed: 1, or what errno is, negated.
EXPORT int read_byte(int fd) {
    char byte;
    ssize_t count = read(fd, &byte, 1);
    return count < 0 ? -errno : static_cast<int>(count);
}

EXPORT int sleep_long() {
    timespec duration = {1000, 0};
    return clock_nanosleep(CLOCK_MONOTONIC, 0, &duration, nullptr);
}

// In uninterruptible sleep, until somebody kills it.
EXPORT void wait_in_vfork() {
    if (vfork() == 0) {
        for (;;) pause();
    }
    sink = 1;
}

// Starts threads that wait until the process ends.
EXPORT void start_waiting(int count) {
    static int never[2];
    if (pipe(never) != 0) std::abort();
    static auto wait = [] { sink = read_byte(never[0]); };
    for (int i = 0; i < count; ++i) {
        pthread_t thread;
        pthread_create(&thread, nullptr, run, reinterpret_cast<void *>(+wait));
    }
}
