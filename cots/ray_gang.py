"""The processes of a stage as a gang in a Ray cluster: all of them run, or none. No other file knows Ray.

A gang is a placement group of one bundle for each process: as many processors as the process has threads, and a GPU if
the cluster has any. Its strategy is PACK, because processes exchange gradients in each step: those on one node need no
network for that, and a gang on few nodes loses one of them less often. In each bundle an actor starts the stage's
module as a process of its own, which finds RANK, WORLD_SIZE, MASTER_ADDR and so on as torchrun sets them, and passes on
what it prints. The process ends when its actor, its node or whoever started the gang ends, however that happens.
"""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cots.errors import INTERRUPTED, BadInput, RunFailed
from cots.process_lines import print_lines, whole_lines

OWN_FAULTS = (RunFailed.exit_code, BadInput.exit_code, INTERRUPTED)  # exit codes that a new start would not change
KILLED = {128 + number: f"was killed by {number.name}" for number in signal.Signals}  # by the shell's exit codes
GRACE_SECONDS = 10.0  # for the others to end by themselves after one has: those that lost a peer may know why
CONNECT_SECONDS = 10.0  # Ray itself tries for minutes, and says nothing
STOP_SECONDS = 40.0  # for those that are told to end; cots.supervise kills a process 30 s after its SIGTERM
START_SECONDS = 300.0  # for Ray to start an interpreter on each node

Resources = dict[str, float]
Environment = Mapping[str, str]
Ending = int | str  # a process's exit code, that of the shell for signals, or why Ray lost it


def run_gang(
    module: str,
    *arguments: str,
    count: int,
    threads: int,
    environment: Environment,
    restarts: int,
    wait_seconds: float,
) -> int:
    """Run a module's main block in `count` processes of the cluster that RAY_ADDRESS names, in this working folder.

    If a process is killed, or lost with its node, the others are ended and all are started anew.

    Args:
        module, arguments: as after `python -m`.
        count: number of processes, >= 1.
        threads: of each process, which takes as many processors.
        environment: of each process; RANK and so on are added.
        restarts: how often the gang may be started anew.
        wait_seconds: how long to wait for enough free nodes, each time.

    Returns:
        0, or the exit code of a process that failed by its own fault; it has printed why.

    Raises:
        BadInput: no cluster answers.
        RunFailed: the cluster has too few free nodes, or the gang was lost more often than `restarts`.
    """
    command = [sys.executable, "-m", "cots.supervise", module, *arguments]
    with _connected():
        # Asked once: a gang that has lost its GPUs waits for others and does not go on without.
        need = {"CPU": float(threads)} | ({"GPU": 1.0} if ray.cluster_resources().get("GPU") else {})
        for start in range(restarts + 1):
            with _placed(module, need, count, wait_seconds) as group:
                endings = _Gang(command, {**environment, "OMP_NUM_THREADS": str(threads)}, group, need).run()
            if (own_faults := _own_faults(endings)) or not any(endings.values()):
                return own_faults[0] if own_faults else 0
            reason = f"{module}: {_reason(endings)}"
            if start < restarts:
                print(
                    f"{reason}: all start anew ({start + 1} of at most {restarts} times)", file=sys.stderr, flush=True
                )
    raise RunFailed(f"{reason}, after {restarts} new starts: see above, and run it again to resume")


@contextmanager
def _connected() -> Iterator[None]:
    """Within this context this process is a driver of the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # where Ray starts here, it would report to its makers
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        if host_and_port := re.fullmatch(r"(.+):(\d+)", address):
            head = host_and_port[1], int(host_and_port[2])
            socket.create_connection(head, timeout=CONNECT_SECONDS).close()
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        where = f"at RAY_ADDRESS={address}" if address else "here, and RAY_ADDRESS is not set"
        raise BadInput(f"no Ray cluster can be used {where}: {' '.join(str(error).split())}") from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _placed(module: str, need: Resources, count: int, wait_seconds: float) -> Iterator[PlacementGroup]:
    """Within this context nodes are reserved for all processes."""
    group = placement_group([need] * count, strategy="PACK")
    try:
        if not group.wait(wait_seconds):
            raise RunFailed(
                f"{module}: {count} processes need {_amounts(need)} each; after {wait_seconds:g} s the cluster has"
                f" {_amounts(ray.cluster_resources(), need)}, free {_amounts(ray.available_resources(), need)}:"
                " add nodes, or lower COTS_PROCESSES"
            )
        yield group
    finally:
        remove_placement_group(group)


def _amounts(resources: Resources, kinds: Resources | None = None) -> str:
    return " and ".join(f"{resources.get(kind, 0):g} {kind}" for kind in kinds or resources)


def _own_faults(endings: Mapping[int, Ending]) -> list[int]:
    """Exit codes of processes that failed by their own fault."""
    return [ending for ending in endings.values() if isinstance(ending, int) and ending in OWN_FAULTS]


def _reason(endings: Mapping[int, Ending]) -> str:
    """What happened to a process that was lost or killed, or else to the first that failed."""
    failed = {rank: ending for rank, ending in endings.items() if ending}
    lost = [rank for rank, ending in failed.items() if isinstance(ending, str) or ending in KILLED]
    rank = [*lost, *failed][0]
    ending = failed[rank]
    if isinstance(ending, str):
        return f"process {rank} was lost ({ending})"
    return f"process {rank} {KILLED.get(ending, f'ended with exit code {ending}')}"


class _Gang:
    """The processes of one start.

    Args:
        command: of each.
        environment: of each, without RANK and so on.
        group: has a bundle for each.
        need: what each takes of it.
    """

    def __init__(
        self, command: Sequence[str], environment: Environment, group: PlacementGroup, need: Resources
    ) -> None:
        self._command, self._environment = command, environment
        nodes = placement_group_table(group)["bundles_to_node_id"]
        here = ray.get_runtime_context().get_node_id()
        # Ranks go node by node; those on the node of this process come first, so rank 0 writes near to who started it.
        bundles = sorted(nodes, key=lambda bundle: (nodes[bundle] != here, nodes[bundle], bundle))
        self._nodes = [nodes[bundle] for bundle in bundles]
        self._ranks = [
            _Rank.options(  # type: ignore[attr-defined]
                num_cpus=need["CPU"],
                num_gpus=need.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle),
                max_concurrency=2,  # `stop` beside `run`
            ).remote()
            for bundle in bundles
        ]
        self._events: SimpleQueue[tuple[int, tuple[int, bytes] | Ending]] = SimpleQueue()
        self._endings: dict[int, Ending] = {}  # by rank, in the order of the ends

    def run(self) -> dict[int, Ending]:
        """Run all to their end; how each ended, by rank, without those that were stopped."""
        try:
            self._start()
            self._follow(until_failure=True)
            if any(self._endings.values()) and not _own_faults(self._endings):
                self._follow(GRACE_SECONDS)
            return dict(self._endings)
        finally:
            self._stop()

    def _start(self) -> None:
        """Start each process, and a thread that waits for what it says."""
        try:  # all of them, so that no process waits for one whose node went before it began
            port, *_ = ray.get([actor.find_free_port.remote() for actor in self._ranks], timeout=START_SECONDS)
        except RayError as error:
            self._endings = dict.fromkeys(range(len(self._ranks)), type(error).__name__)
            return
        for rank, variables in enumerate(self._rank_variables(port)):
            messages = self._ranks[rank].run.remote(self._command, str(Path.cwd()), {**self._environment, **variables})
            threading.Thread(target=self._listen, args=(rank, messages), daemon=True).start()

    def _rank_variables(self, port: int) -> list[dict[str, str]]:
        """What torchrun sets, by rank; rank 0 listens at this port of its node."""
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        return [
            {
                "RANK": str(rank),
                "LOCAL_RANK": str(self._nodes[:rank].count(node)),
                "WORLD_SIZE": str(len(self._nodes)),
                "LOCAL_WORLD_SIZE": str(self._nodes.count(node)),
                "MASTER_ADDR": addresses[self._nodes[0]],
                "MASTER_PORT": str(port),
            }
            for rank, node in enumerate(self._nodes)
        ]

    def _listen(self, rank: int, messages: Iterable[Any]) -> None:
        try:
            for message in messages:
                self._events.put((rank, ray.get(message)))
        except RayError as error:
            self._events.put((rank, type(error).__name__))

    def _follow(self, seconds: float | None = None, *, until_failure: bool = False) -> None:
        """Print what processes print, until all have ended, the time is over or, if so asked, one has failed."""
        end = None if seconds is None else monotonic() + seconds
        while len(self._endings) < len(self._ranks) and not (until_failure and any(self._endings.values())):
            try:
                rank, event = self._events.get(timeout=None if end is None else max(end - monotonic(), 0))
            except Empty:
                return
            if isinstance(event, tuple):
                print_lines(*event)
            else:
                self._endings[rank] = event

    def _stop(self) -> None:
        """End what still runs, so that no process of this start writes files beside those of the next one."""
        for rank, actor in enumerate(self._ranks):
            if rank not in self._endings:
                actor.stop.remote()
        self._follow(STOP_SECONDS)


@ray.remote
class _Rank:
    """Runs one process of a gang on its node."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def find_free_port(self) -> int:
        """A port that is free on this node."""
        with socket.socket() as free:
            free.bind(("", 0))
            return int(free.getsockname()[1])

    def run(self, command: Sequence[str], folder: str, environment: Environment) -> Iterator[tuple[int, bytes] | int]:
        """What the process prints, as whole lines with the number of their stream, and at last its exit code."""
        devices = {name: value for name, value in os.environ.items() if name.endswith("_VISIBLE_DEVICES")}
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                cwd=folder,
                env={**environment, **devices},
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                start_new_session=True,  # Ray kills the process group of an actor
            )
        except FileNotFoundError as error:
            advice = "every node needs the project's folder and Python at the same paths"
            yield 2, f"error: {error.filename} is missing on {socket.gethostname()}: {advice}\n".encode()
            yield BadInput.exit_code
            return
        if self._stopped:
            self.stop()
        yield from whole_lines(self._process)
        yield self._process.wait()

    def stop(self) -> None:
        """End the process: its supervisor ends it when standard input closes, as when this actor dies."""
        self._stopped = True
        if self._process and self._process.stdin:
            self._process.stdin.close()
