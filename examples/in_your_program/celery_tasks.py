"""Celery tasks with a pool in each of Celery's worker processes.

Run, with a broker of your own: celery --app celery_tasks worker --concurrency 2
"""

import os

from celery import Celery

from compilepool import CompilePool

FOLDER = os.environ.get("BROKER_FOLDER", "celery-broker")  # a broker for one machine
os.makedirs(f"{FOLDER}/queue", exist_ok=True)
os.makedirs(f"{FOLDER}/results", exist_ok=True)

app = Celery("celery_tasks", broker="filesystem://", backend=f"file://{FOLDER}/results")
app.conf.broker_transport_options = {
    "data_folder_in": f"{FOLDER}/queue",
    "data_folder_out": f"{FOLDER}/queue",
    "control_folder": f"{FOLDER}/control",
}


pool = CompilePool(max_workers=2, timeout=60)  # starts nothing before the first task


def compile_kernel(size: int) -> str:
    return f"matmul_{size}"


@app.task
def compile_all(sizes: list[int]) -> list[str]:
    return list(pool.map(compile_kernel, sizes))
