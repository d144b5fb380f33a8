"""The daemon on a GPU: images a second with a full queue beside the bare engine's, and Poisson arrivals, continuous batching beside one picture at a
time. It reuses the traffic, the client and the counters of tests/bench/serving.

Loads are shares of what one at a time can do, so that both policies get the same arrivals, and continuous batching those of its own capacity too.
"""
import contextlib
import os
import sys

import figures

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
GUIDANCE = 4.0


class Served:
    def __init__(self, run, model):
        self.run, self.model = run, model
        self.steps, self.loads = (3, [0.8]) if run.emulated else (figures.STEPS, [0.5, 0.8, 1.0, 1.5])
        self.arrivals, self.queued = (4, 4) if run.emulated else (60, 256)
        os.environ["DENOISED"] = run.built("denoised")
        os.environ.update({name: run.environment[name] for name in ("DENOISED_BACKEND_DIR", "LD_LIBRARY_PATH")})
        sys.path[:0] = [os.path.join(ROOT, "tests/bench/serving"), os.path.join(ROOT, "tests/e2e")]
        import harness
        import runs
        import traffic
        self.harness, self.runs, self.traffic = harness, runs, traffic

    def request(self, seed):
        return {"sampler": "ddim", "steps": self.steps, "guidance_scale": GUIDANCE, "class_label": seed % 10, "seed": seed}

    @contextlib.contextmanager
    def daemon(self, policy):
        harness, run, model = self.harness, self.run, self.model

        class OnDevice(harness.Daemon):
            def command(self):
                return [harness.PROGRAM, "serve", "--listen", self.listen, "--data", self.data, "--model", f"gpu={model}", "--device", run.device,
                        "--batching", policy, "--preload"]
        data = os.path.join(run.folder, f"data-{policy}")
        os.makedirs(data, exist_ok=True)
        with OnDevice(data=data) as daemon:
            harness.eventually(lambda: daemon.get("/readyz").status == 200, what="the daemon is ready")
            daemon.pids = [daemon.process.pid, *daemon.worker_pids()]
            yield daemon

    def full(self, daemon, count):
        """Rows a second of a queue that never runs dry; graphs of its batch sizes are there when it counts."""
        from client import Client
        client = Client(daemon.port)
        self.runs.wait_all(client, self.runs.post_all(client, [self.request(10 ** 6 + i) for i in range(max(count // 2, 1))]))
        client.close()
        return self.runs.full_queue(daemon, [self.request(i) for i in range(count)])

    def poisson(self, daemon, policy, load, capacity):
        if self.run.left() < 5:
            self.run.skip(f"{policy} at {load} and what comes after it: the time was over")
            return None
        requests = [self.request(2000 + i) for i in range(self.arrivals)]
        gap = self.traffic.rows_of(requests[0]) / (load * capacity)
        times = [t * gap for t in self.traffic.arrivals(7, len(requests))]
        return self.runs.Poisson(daemon, daemon.pids, requests, times, 7).measure()

    def told(self, name, measured):
        self.run.figure({"figure": f"{name}, images/s", "value": measured["images_per_second"], "unit": "images/s", "rows_per_tick": measured["rows_per_tick"],
                         "tick_ms": measured["tick_ms"], "shares": measured["shares"]})
        return self.run.figure({"figure": f"{name}, p95", "value": measured["latency"]["p95"], "unit": "s", **{q: measured["latency"][q] for q in ("p50", "p99")}})

    def everything(self):
        bare = self.run.program("gpu_generate", "--device", self.run.device, "--model", self.model, "--images", 4 if self.run.emulated else 128, "--steps",
                                self.steps, "--guidance", GUIDANCE, "--sampler", "ddim", seconds=0.4 * self.run.left())
        bare = next((one for one in bare if one["figure"] == "bare engine"), None)
        p95, row = {}, 2.0 * self.steps
        with self.daemon("single") as daemon:
            single = self.full(daemon, max(self.queued // 8, 2))
            self.run.figure({"figure": "daemon, full queue, one at a time", "value": single / row, "unit": "images/s"})
            for load in self.loads:
                measured = self.poisson(daemon, "one at a time", load, single)
                if measured:
                    p95[load] = self.told(f"load {load}, one at a time", measured)["value"]
        with self.daemon("continuous") as daemon:
            whole = self.full(daemon, self.queued)
            one = self.run.figure({"figure": "daemon, full queue, continuous", "value": whole / row, "unit": "images/s"})
            if bare:
                figures.hold(one, floor=bare["value"], target=figures.SERVED_SHARE, of=one["value"] / bare["value"])
            for load in self.loads:
                measured = self.poisson(daemon, "continuous", load, single)
                if measured:
                    one = self.told(f"load {load}, continuous", measured)
                    if load in p95:
                        figures.hold(one, target=figures.P95_SHARE if load == 0.8 else None, least=False, of=one["value"] / p95[load])
            measured = self.poisson(daemon, "continuous, of its own capacity", 0.8, whole)
            if measured:
                self.told("load 0.8 of its own capacity, continuous", measured)
