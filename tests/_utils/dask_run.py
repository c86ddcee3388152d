"""Program for the test of dask: crashing jobs, and workers of the cluster that die.

python -m tests._utils.dask_run
"""

import os
import signal

from cqt2img._utils.parallel import run_parallel
from tests._utils.tasks import work

N_JOBS = 40


def main():
    import joblib
    from dask.distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    actions = ["slow"] * N_JOBS
    actions[3] = "SIGSEGV"
    actions[7] = "process"
    jobs = enumerate(actions)
    results = []
    with (
        LocalCluster(**options) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        for n, result in enumerate(run_parallel(work, jobs, N_JOBS)):
            results.append(result)
            if n in (9, 19):
                # a process of the cluster, with the jobs that it runs
                worker = list(cluster.workers.values())[n % 2]
                os.kill(worker.pid, signal.SIGKILL)
    assert results[3][0] == "worker_died", results
    assert results[7] != os.getpid()
    others = [n for n in range(N_JOBS) if n not in (3, 7)]
    assert [results[n] for n in others] == others, results
    print("good")


if __name__ == "__main__":
    main()
