"""Job submission to a Ray cluster: upload, run, follow the log."""

import asyncio
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster.session import knock
from pipeline.config.schema import Cluster
from pipeline.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

HANDED_ON = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's name for the source of a job's tasks' environment
GRACE = 30  # s that a stopped job has to end; Ray's 3 s are fewer than `actionbench repro` takes
AGAIN = 2.0  # s until a broken log is requested again
LOST = 60.0  # s without an answer until the cluster counts as lost


def submit(cluster: Cluster, package: Path, command: Sequence[str]) -> int:
    """Run a command on the cluster's head, in an unpacked zip, and print its output.

    The cluster is RAY_API_SERVER_ADDRESS (its dashboard), or RAY_ADDRESS, or cluster.address. Ctrl-C stops the job. If
    this process is killed or the connection lost, the job continues. None of this process's variables are sent, because
    Ray shows a job's to all who may list jobs.

    Args:
        cluster: the settings.
        package: the zip.
        command: and its arguments.

    Returns:
        The command's exit code; 1 if Ray couldn't run it, 130 for a stopped job.

    Raises:
        UserError: No cluster is named, none answers, its token differs, or it is lost.
    """
    client = _client(cluster)
    environment = {"working_dir": str(package), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(GRACE)}}
    log = _Log(client, client.submit_job(entrypoint=shlex.join(command), runtime_env=environment))
    try:
        print(f"job {log.job} at {client.get_address()}; Ctrl-C stops it", file=sys.stderr, flush=True)
        asyncio.run(log.follow())
    except KeyboardInterrupt:
        print(f"stopping {log.job}, which takes up to {GRACE} s", file=sys.stderr, flush=True)
        client.stop_job(log.job)
        while not client.get_job_status(log.job).is_terminal():
            time.sleep(0.5)
    log.rest()
    info = client.get_job_info(log.job)
    if info.status == "STOPPED":
        print("stopped; the next submit resumes", file=sys.stderr)
        return 130
    if info.status == "SUCCEEDED":
        return 0
    if info.driver_exit_code is None:
        print(
            f"error: Ray could not run the job: {' '.join((info.message or 'no reason given').split())}",
            file=sys.stderr,
        )
    elif info.driver_exit_code == 127:
        print("error: start Ray on the head with the environment's bin/ first on its PATH", file=sys.stderr)
    return max(info.driver_exit_code or 0, 1)


def home() -> str:
    """Return the folder where Ray was started on this node.

    The cluster is at RAY_ADDRESS. Its tasks work there.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def folder() -> str:
        return os.getcwd()  # noqa: PTH109

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
    try:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return ray.get(ray.remote(folder).options(num_cpus=0, scheduling_strategy=here).remote())
    finally:
        ray.shutdown()


def _client(cluster: Cluster) -> "JobSubmissionClient":
    import ray
    from ray.job_submission import JobSubmissionClient

    address = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or cluster.address
    if address == "local":
        raise UserError(
            "no cluster is named to submit to: set RAY_API_SERVER_ADDRESS to its dashboard, such as "
            "http://127.0.0.1:8265, or cluster.address; `actionbench repro` runs here"
        )
    try:
        url = urlsplit(address)
        knock(f"{url.hostname}:{url.port or {'https': 443}.get(url.scheme, 80)}" if "://" in address else address)
        return JobSubmissionClient(address)
    except ray.exceptions.AuthenticationError:
        raise UserError(
            f"the Ray cluster at {address!r} does not take this process: its token is another; "
            "put it into ~/.ray/auth_token or RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token"
        ) from None
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"no Ray cluster takes jobs at {address!r} ({' '.join(str(error).split())}); use its dashboard, port 8265 "
            "of the head's loopback: `ssh -L 8265:127.0.0.1:8265 <head>` or `ray dashboard` forward it"
        ) from None


class _Log:
    """A job's log, with each character printed once."""

    def __init__(self, client: "JobSubmissionClient", job: str) -> None:
        self.client, self.job, self.shown = client, job, 0

    async def follow(self) -> None:
        """Print the log until the job has ended; reconnect after a broken connection."""
        import aiohttp

        heard = time.monotonic()
        while True:
            passed = 0
            try:
                async for text in self.client.tail_job_logs(self.job):  # always from its beginning
                    self._show(text, passed)
                    passed, heard = passed + len(text), time.monotonic()
                if self.client.get_job_status(self.job).is_terminal():
                    return
                heard = time.monotonic()
            except (OSError, RuntimeError, aiohttp.ClientError) as error:
                if time.monotonic() - heard > LOST:
                    raise UserError(
                        f"{self.client.get_address()} no longer answers ({error}); the job continues on the cluster: "
                        f"`ray job logs --follow {self.job}` shows it, `ray job stop {self.job}` stops it"
                    ) from None
            await asyncio.sleep(AGAIN)

    def rest(self) -> None:
        """Print the last output of the ended job."""
        self._show(self.client.get_job_logs(self.job), 0)

    def _show(self, text: str, passed: int) -> None:
        fresh = text[max(0, self.shown - passed) :]
        self.shown += len(fresh)
        sys.stdout.write(fresh)
        sys.stdout.flush()
