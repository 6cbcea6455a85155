"""Workers on a cluster of Ray, which places them and starts them again when they are lost.

Each worker is an actor around :class:`~restormer_cli.executors.endpoint.WorkerEndpoint`. The images
of a lost worker go to any other: Ray itself would keep them for this very actor, which may wait for
hours until a node has room. So this module only connects and passes calls.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restormer_cli.batch.items import Item
from restormer_cli.batch.options import RunOptions
from restormer_cli.errors import UsageError
from restormer_cli.executors.endpoint import Reply, WorkerEndpoint
from restormer_cli.executors.scheduler import Lost
from restormer_cli.loading import RestorerSpec
from restormer_cli.system.processors import processors

if TYPE_CHECKING:
    from restormer_cli.executors.launch import ExecutorOptions


logger = logging.getLogger(__name__)

#: Seconds that the head of a cluster may take to answer.
ANSWER_SECONDS = 5.0


class RayCluster:
    """A :class:`~restormer_cli.executors.scheduler.WorkerPool` of Ray actors.

    Parameters
    ----------
    executor_options
        Address, number and size of the workers.
    run_options
        The options of the run, with paths that are valid on every node.
    spec
        The weights, device and precision to restore with.

    Raises
    ------
    UsageError
        If there is no such cluster, or no node of it has room for a worker.
    """

    def __init__(
        self,
        executor_options: ExecutorOptions,
        run_options: RunOptions,
        spec: RestorerSpec,
    ) -> None:
        self._ray = _connect(executor_options.ray_address)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = executor_options.cpus_per_worker or 1
        gpus = executor_options.gpus_per_worker
        if gpus is None:
            gpus = float(spec.device != "cpu" and any(node.get("GPU") for node in nodes))
        if spec.device == "cuda" and not gpus:
            self._ray.shutdown()
            raise UsageError("no node of the Ray cluster has a GPU; say --device cpu")
        rooms = [_room(node, cpus, gpus) for node in nodes]
        if not any(rooms):
            self._ray.shutdown()
            raise UsageError(f"no node of the Ray cluster has {cpus} CPUs and {gpus:g} GPUs")
        self.size = executor_options.workers or sum(rooms)
        logger.info(
            f"Ray: {len(nodes)} nodes with room for {sum(rooms)} workers "
            f"of {cpus} CPUs and {gpus:g} GPUs; {self.size} asked for"
        )
        # Ray hides no GPU from a worker that has asked for none, so others' work may run there.
        device = {"auto": "cuda" if gpus else "cpu"}.get(spec.device, spec.device)
        spec = replace(
            spec,
            device=device,
            threads=cpus,
            sharers=min(max(rooms), self.size),
            device_share=min(1.0, gpus or 1.0),
        )
        self._arguments = (run_options, spec)
        self._actor = self._ray.remote(
            num_cpus=cpus, num_gpus=gpus, max_restarts=-1, scheduling_strategy="SPREAD"
        )(WorkerEndpoint)
        self._workers: dict[int, Any] = {}
        self._new: set[int] = set()
        self._calls: dict[Any, int] = {}

    def start(self, worker: int) -> None:
        if worker not in self._workers:
            self._workers[worker] = self._actor.remote(*self._arguments)
        self._new.add(worker)

    def call(self, worker: int, chunks: Sequence[Sequence[Item]], stop: bool) -> None:
        # The first call waits until Ray has found room for the worker, again if need be. Any
        # other must fail when the worker is lost, and with it what it had in hand.
        retries = -1 if worker in self._new else 0
        exchange = self._workers[worker].exchange.options(max_task_retries=retries)
        self._calls[exchange.remote(chunks, stop)] = worker

    def replies(self, seconds: float) -> Iterable[tuple[int, Reply | Lost]]:
        calls = list(self._calls)
        self._ray.wait(calls, timeout=seconds)  # for one; then take all that are there
        ready, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        for call in ready:
            worker = self._calls.pop(call)
            yield worker, self._answer(worker, call)

    def _answer(self, worker: int, call: Any) -> Reply | Lost:
        errors = self._ray.exceptions
        try:
            reply: Reply = self._ray.get(call)
        except (errors.RayError, ImportError) as error:
            gone = isinstance(error, errors.RayActorError) and "__init__" not in str(error)
            return Lost("its process or node has gone" if gone else _lines(error)[-1])
        self._new.discard(worker)
        if reply.state == "broken":
            # Its process is not to be trusted any more.
            self._ray.kill(self._workers[worker], no_restart=False)
        return reply

    def close(self) -> None:
        for actor in self._workers.values():
            self._ray.kill(actor)
        self._ray.shutdown()


def _room(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    """The number of workers that fit on a node."""
    room = int(node.get("CPU", 0) // cpus)
    return min(room, int(node.get("GPU", 0) / gpus)) if gpus else room


def _connect(address: str | None) -> Any:
    """Return the module ``ray``, connected to a cluster or to one started for this run.

    Ray itself would look for a cluster, too, but try for minutes to reach a dead one.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None or address == "auto":
        found = _cluster_of_this_machine()
        if address == "auto" and found is None:
            raise UsageError("--ray-address auto: no cluster is up on this machine")
        address = found
    else:
        _see_that_it_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # On nodes that are started here, workers are no nicer than this process would be.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # What nodes have to say would be printed to stdout, where only results belong.
    os.environ |= {"RAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS_SKIP_REGEX": ".?"}
    with _own_signals():
        import ray

        quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        try:
            if address is None:
                ray.init("local", num_cpus=processors(), include_dashboard=False, **quiet)
            else:
                ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(f"Ray at {address or 'this machine'}: {_lines(error)[0]}") from error
    return ray


def _cluster_of_this_machine() -> str | None:
    """The address of the cluster that ``ray start`` began on this machine, if it is up."""
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    with contextlib.suppress(OSError, ValueError, UsageError):
        address = note.read_text(encoding="utf-8").strip()
        _see_that_it_answers(address)
        return address
    return None


def _see_that_it_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 0
    if "://" in address or not host or not 0 < number < 1 << 16:
        raise UsageError(f"--ray-address {address}: say HOST:PORT, as `ray start` does, or auto")
    try:
        socket.create_connection((host.strip("[]"), number), ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:  # the latter if it can be no name of a host
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--ray-address {address}: nobody answers ({reason})") from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our signal handlers, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _lines(error: BaseException) -> list[str]:
    """The lines of an error of Ray; the last is that of an error it wraps."""
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
