#!/bin/sh
# Fetches the tests of other executors to .cache/executor-tests: `cpython` from Debian's test package
# of Python 3.13, `loky` and `pebble` from their source packages, `pytorch` from the checkout of
# PyTorch that $PYTORCH_SOURCE names. $1 names one, $2 is an interpreter with pip. Installs nothing.
# What it cannot get, it says, and fetches nothing.
set -eu
suite=$1
python=$2
cd "$(dirname "$0")/.."
target=.cache/executor-tests/$suite
[ ! -e "$target" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
give_up() {
    echo "no executor tests of $suite: $1" >&2
    exit 0
}

# What apt knows of mirrors once its lists are there.
find_mirror() {
    apt-get indextargets --format '$(SITE)' 'Identifier: Packages' 'Origin: Debian' 'Component: main' | head -n 1
}

# Debian 13 has Python 3.13. It comes from this machine's mirror; its lists are kept apart from this
# machine's.
fetch_cpython() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || give_up "this is no Debian"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$keys" ] || give_up "this is no Debian"
    mirror=$(find_mirror)
    if [ -z "$mirror" ]; then
        apt-get update >/dev/null 2>&1 || give_up "apt-get update failed"
        mirror=$(find_mirror)
        [ -n "$mirror" ] || give_up "apt has no mirror of Debian"
    fi
    mkdir -p "$work/sources" "$work/lists/partial" "$work/cache/archives/partial" "$work/debs"
    cat >"$work/sources/trixie.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: trixie
Components: main
Signed-By: $keys
SOURCES
    cat >"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/sources";
Dir::State::lists "$work/lists";
Dir::Cache "$work/cache";
CONF
    # apt drops its privileges for a download where the directories let it.
    chmod -R a+rX "$work"
    export APT_CONFIG="$work/apt.conf"
    apt-get update >/dev/null 2>&1 || give_up "apt-get update failed"
    (cd "$work/debs" && apt-get download libpython3.13-testsuite >/dev/null 2>&1) ||
        give_up "apt-get download libpython3.13-testsuite failed"
    dpkg -x "$work"/debs/*.deb "$work/unpacked"
    mkdir "$work/wanted"
    cp -r "$work/unpacked/usr/lib/python3.13/test/test_concurrent_futures" "$work/wanted/"
    echo "import tools.executor_tests.newer_support" >"$work/wanted/test_concurrent_futures/__init__.py"
}

fetch_package() {
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
        --dest "$work" "$suite==$1" >/dev/null 2>&1 || give_up "pip download $suite==$1 failed"
    mkdir "$work/wanted"
    tar -xzf "$work/$suite-$1.tar.gz" --strip-components 1 -C "$work/wanted"
}

fetch_pytorch() {
    [ -n "${PYTORCH_SOURCE:-}" ] || give_up "PYTORCH_SOURCE names no checkout of PyTorch"
    mkdir "$work/wanted"
    for name in test_compile_worker test_async_compile test_thread_pool; do
        cp "$PYTORCH_SOURCE/test/inductor/$name.py" "$work/wanted/"
    done
    echo "import tools.executor_tests.torch_stand_in" >"$work/wanted/sitecustomize.py"
}

# Tests import these modules of the package under test: ours stand in for them.
stand_in() {
    echo "from tools.executor_tests.$2 import *" >>"$work/wanted/$1"
}

case $suite in
cpython)
    fetch_cpython
    ;;
loky)
    fetch_package 3.7.0
    : >"$work/wanted/loky/process_executor.py"
    : >"$work/wanted/loky/reusable_executor.py"
    stand_in loky/process_executor.py loky_executor
    stand_in loky/reusable_executor.py loky_reusable
    ;;
pebble)
    fetch_package 5.2.3
    stand_in pebble/__init__.py pebble_pool
    ;;
pytorch)
    fetch_pytorch
    ;;
esac
mkdir -p .cache/executor-tests
mv "$work/wanted" "$target"
