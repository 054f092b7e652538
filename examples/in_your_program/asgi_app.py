"""An ASGI application whose pool starts and ends with it.

Run: uvicorn --app-dir examples/in_your_program asgi_app:app
"""

import asyncio
from collections.abc import Awaitable, Callable

from compilepool import CompilePool

pool = CompilePool(max_workers=2, timeout=60)  # starts nothing yet


def compile_kernel(size: int) -> str:
    return f"matmul_{size}"


async def app(
    scope: dict[str, bytes], receive: Callable[[], Awaitable], send: Callable[[dict], Awaitable]
) -> None:
    if scope["type"] == "lifespan":
        await live(receive, send)
    else:
        future = pool.submit(compile_kernel, int(scope["query_string"]))
        kernel = await asyncio.wrap_future(future)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": kernel.encode()})


async def live(receive: Callable[[], Awaitable], send: Callable[[dict], Awaitable]) -> None:
    """The ASGI lifespan protocol. In FastAPI or Starlette, this is the `lifespan` function."""
    await receive()  # lifespan.startup
    pool.warm_up()
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await asyncio.to_thread(pool.shutdown, cancel_futures=True)
    await send({"type": "lifespan.shutdown.complete"})
