#!/bin/sh
# Fetches CPython's own tests of executors to .cache/cpython-tests, where the interpreter $1 was
# installed without them and Debian packages them. Installs nothing. Without them the test module
# that runs them is skipped, or fails if COMPILEPOOL_CPYTHON_TESTS=required.
set -eu
python=$1
cd "$(dirname "$0")/.."
target=.cache/cpython-tests
if "$python" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("test.test_concurrent_futures"))' 2>/dev/null; then
    exit 0
fi
[ ! -e "$target" ] || exit 0
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
package=libpython$version-testsuite
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "no CPython executor tests: not installed with $python, and this is no Debian" >&2
    exit 0
fi
# apt drops its privileges for a download where the directory lets it.
chmod 755 "$work"
download() { (cd "$work" && apt-get download "$package" >/dev/null 2>&1); }
if ! download && ! { apt-get update >/dev/null 2>&1 && download; }; then
    echo "no CPython executor tests: apt-get download $package failed" >&2
    exit 0
fi
dpkg -x "$work"/*.deb "$work/unpacked"
mkdir -p .cache
mv "$work/unpacked/usr/lib/python$version/test" "$work/tests"
mkdir "$work/wanted"
cp -r "$work/tests/test_concurrent_futures"* "$work/wanted/"
mv "$work/wanted" "$target"
