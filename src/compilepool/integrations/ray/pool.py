"""`RayCompilePool`: a pool over the nodes of a Ray cluster."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from compilepool.client.configured_pool import ConfiguredPool
from compilepool.client.future import CompileFuture
from compilepool.client.options import JobOptions, PoolOptions
from compilepool.client.terms import terms_of
from compilepool.client.whole_pool import WholePool
from compilepool.integrations.ray.cluster import Cluster
from compilepool.integrations.ray.session import ClusterSession

if TYPE_CHECKING:
    from compilepool.client.job_dump import JobDump
    from compilepool.integrations.ray.observing import ClusterStats

T = TypeVar("T")

_FIRST: dict[str, Any] = {
    "preload": (),
    "initializer": None,
    "initargs": (),
    "start_method": "fork",
    "serializer": None,
}


class RayCompilePool(WholePool):
    """A `CompilePool` on each node of a Ray cluster, as one `concurrent.futures.Executor`.

    Each node gets one actor, which has a `CompilePool` there. Jobs go to nodes with free workers
    and memory. Results, errors, limits, records, cancelling and `options` are those of
    `CompilePool`; `future.record.node` says which node ran a job, and so does every error of the
    pool. If a node is lost, its unfinished jobs run on others, once; a node that joins the cluster
    is used. With this program, all actors end, and with each actor all that is below it, however
    they end.

    As a context manager, it ends as `CompilePool` does.

    Args:
        max_workers: the number of jobs that may run at once on each node; None: the CPUs that Ray
            counts there.
        address: the cluster, as for `ray.init`. None: the one that this process is connected to;
            if there is none, what `ray.init` finds or starts. A connection that this makes ends
            with the pool, and no other does.
        nodes: the IDs or IP addresses of the nodes to use; None: all.
        ray_remote_args: arguments of `ray.remote` for the actors, such as `num_cpus` (default 0:
            the pools take no part in Ray's own accounts), `resources` or `runtime_env`.
        pool_options: the other options of `CompilePool`. They hold on each node: `log_dir`, `cpus`
            and `shared` mean the node's. `progress`, `trace`, `report` and `seed` mean the whole
            pool.

    Raises:
        ImportError: Ray is not installed, or too old.
        ConnectionError: there is no cluster at this address.
        TypeError, ValueError: an argument is wrong. The message lists all problems.
        SerializationError: `serializer`, `initializer` or `initargs` cannot be pickled.
        OSError: `trace` cannot be written.
    """

    _session: ClusterSession

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        address: str | None = None,
        nodes: Sequence[str] | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
        **pool_options: Any,
    ) -> None:
        unknown = pool_options.keys() - set(PoolOptions._fields)
        if unknown:
            raise TypeError(f"RayCompilePool has no option {', '.join(sorted(unknown))}")
        if isinstance(nodes, str) or not isinstance(nodes, Sequence | None):
            raise TypeError(f"nodes must be a list of IDs or IP addresses, not {nodes!r}")
        options = PoolOptions(max_workers=max_workers, **{**_FIRST, **pool_options})
        if options.env is None:
            options = options._replace(env={})
        options.check()
        self._options = options
        self._default_terms = terms_of(options, JobOptions())
        cluster = Cluster(address, nodes, wants_cpus=max_workers is None)
        try:
            self._session = ClusterSession(options, cluster, ray_remote_args or {})
        except BaseException:
            cluster.close()
            raise
        end = weakref.finalize(self, self._session.let_go)
        end.atexit = False

    def options(
        self, *, env: Mapping[str, str | None] | None = None, **options: Any
    ) -> ConfiguredPool:
        """Return a view of this pool that submits jobs with these options.

        Args:
            env: environment variables that differ for the job.
            options: see `CompilePool.options`. Jobs with the same `key`, or flight, go to the same
                node.

        Raises:
            TypeError, ValueError: an option is wrong. The message lists all problems.
        """
        job = JobOptions(env={} if env is None else env, **options)
        job.check()
        terms = terms_of(self._options, job)
        return ConfiguredPool(self, self._session, job.name, terms, job.flight_key)

    @property
    def max_workers(self) -> int:
        """The number of jobs that may run at once on the nodes that are up now."""
        return self._session.max_workers

    def forget(self, key: str) -> None:
        """As `CompilePool.forget`."""
        self._session.control("forget", key)

    def warm_up(self) -> None:
        """Start the pools of all nodes, and all their workers. Returns at once."""
        self._session.warm_up()

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Warm the pool up, and wait until all workers of all nodes have started.

        Args:
            timeout: the longest time to wait, in seconds; None: no limit.

        Returns:
            False after `timeout`; otherwise True.

        Raises:
            PoolClosed: the pool was shut down.
            RuntimeError: the caller is a callback of a future.
            NoNode: no node can be used.
        """
        return self._session.wait_ready(timeout)

    def quiesce(self, *, keep_warm: bool = False) -> None:
        """As `CompilePool.quiesce`, on each node. The actors stay."""
        self._session.control("quiesce", keep_warm)

    def reload(self) -> None:
        """As `CompilePool.reload`, on each node."""
        self._session.control("reload")

    def stats(self) -> ClusterStats:
        """Return counts, durations, workers and memory, of all nodes and of each."""
        return self._session.observing.stats()

    def dump(self, future: CompileFuture[Any], *, timeout: float = 5.0) -> JobDump:
        """As `CompilePool.dump`."""
        return self._session.dump(future, timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more jobs, and end all actors when the accepted jobs have ended.

        Args:
            wait: whether to return only when all processes of the nodes' pools are gone.
            cancel_futures: whether to cancel the jobs that are not known to run.
        """
        self._session.shutdown(wait=wait, cancel_futures=cancel_futures)

    def terminate_workers(self) -> None:
        """As `CompilePool.terminate_workers`."""
        self._session.terminate_workers()

    def kill_workers(self) -> None:
        """As `CompilePool.kill_workers`: ends all actors, and with them all below."""
        self._session.kill_workers()
