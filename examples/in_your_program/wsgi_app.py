"""A WSGI application with a pool in each of gunicorn's workers.

Run: gunicorn --workers 2 --preload --chdir examples/in_your_program wsgi_app:app
"""

from collections.abc import Callable, Iterable

from compilepool import CompilePool

pool = CompilePool(max_workers=2, timeout=60)  # starts nothing before the first request


def compile_kernel(size: int) -> str:
    return f"matmul_{size}"


def app(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    kernel = pool.submit(compile_kernel, int(environ["QUERY_STRING"])).result()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [kernel.encode()]
