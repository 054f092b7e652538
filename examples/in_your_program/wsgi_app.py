"""A WSGI application with a pool in each of gunicorn's workers.

Run: gunicorn --workers 2 --preload --chdir examples/in_your_program wsgi_app:app
"""

import functools
from collections.abc import Callable, Iterable

from compilepool import CompilePool


@functools.cache
def pool() -> CompilePool:
    """The pool of this process, made when its first request comes: never before a fork."""
    return CompilePool(max_workers=2, timeout=60)


def compile_kernel(size: int) -> str:
    return f"matmul_{size}"


def app(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    kernel = pool().submit(compile_kernel, int(environ["QUERY_STRING"])).result()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [kernel.encode()]
