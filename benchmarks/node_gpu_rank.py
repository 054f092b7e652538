"""One rank of `benchmarks/node_gpu.py`: the first training step of a model, in one mode."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SEED = 7
BATCH, LENGTH = 4, 256


def main(mode: str, name: str, folder: str) -> None:
    rank = int(os.environ["RANK"])
    Path(folder, f"pid{rank}").write_text(str(os.getpid()))
    if mode != "torch":
        from compilepool.integrations.torch import install

        install(shared=mode == "shared")
    import torch
    import torch.distributed as dist

    jobs = count_jobs(mode)
    gpus, ranks = torch.cuda.device_count(), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % gpus)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl" if ranks <= gpus else "gloo")  # NCCL wants a GPU for each rank
    torch.manual_seed(SEED)
    model, vocabulary = make_model(name)
    torch.manual_seed(SEED)
    tokens = torch.randint(vocabulary, (BATCH, LENGTH)).to(device)
    parallel = torch.nn.parallel.DistributedDataParallel(
        model.to(device), device_ids=[device], find_unused_parameters=False
    )
    compiled = torch.compile(parallel)
    optimizer = torch.optim.AdamW(parallel.parameters(), lr=1e-3)
    losses = []
    dist.barrier()
    began = time.time()
    for _ in range(2):
        loss = compiled(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if len(losses) == 1:
            torch.cuda.synchronize()
            ended = time.time()
            phases = seconds_of_phases()
    result = {"losses": losses, "began": began, "ended": ended, "jobs": len(jobs), "phases": phases}
    Path(folder, f"result{rank}").write_text(json.dumps({**result, **of_pool(mode)}))
    dist.barrier()
    dist.destroy_process_group()


def count_jobs(mode: str) -> list[str]:
    """Note the kernels that this rank gives to its pool."""
    owner = "torch._inductor" if mode == "torch" else "compilepool.integrations.torch"
    pool = importlib.import_module(f"{owner}.compile_worker.subproc_pool").SubprocPool
    submit = pool.submit
    noted: list[str] = []

    def note(self: Any, function: Any, *args: Any, **options: Any) -> Any:
        if getattr(function, "__name__", "") == "_worker_compile_triton":
            noted.append(mode)
        return submit(self, function, *args, **options)

    pool.submit = note
    return noted


def seconds_of_phases() -> dict[str, float]:
    """How long this rank took for each phase of Dynamo and Inductor; some contain others."""
    from torch._dynamo.utils import compilation_time_metrics

    return {phase: sum(seconds) for phase, seconds in compilation_time_metrics.items()}


def of_pool(mode: str) -> dict[str, int]:
    """How many jobs of this rank were runs of its own."""
    if mode == "torch":
        return {}
    from compilepool.integrations.torch import current_pool

    pool = current_pool()
    assert pool is not None
    stats = pool.stats()
    not_run = stats.joined + stats.reused
    return {"runs": stats.done + sum(stats.failed.values()) - not_run}


def make_model(name: str) -> tuple[Any, int]:
    import transformers

    if name == "bert":
        config = transformers.BertConfig(num_hidden_layers=4)
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        return transformers.BertForMaskedLM(config), config.vocab_size
    config = transformers.LlamaConfig(
        num_hidden_layers=4,
        hidden_size=1024,
        intermediate_size=2816,
        num_attention_heads=16,
        num_key_value_heads=8,
        vocab_size=32000,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config), config.vocab_size


if __name__ == "__main__":
    main(*sys.argv[1:])
