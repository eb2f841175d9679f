# SPDX-License-Identifier: Apache-2.0
"""`retriever exec`: the job runs as if nobody wrapped it, and what it sent last
arrives. Each job is compared with what the same command does on its own."""
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from harness import BINARY, Agent, Case, Uds, compile_preload, eventually

PY = "/usr/bin/python3"

# What a job's client does: the address comes from the environment alone.
SEND = r"""
import os, re, socket, sys, time, signal
def client():
    url = os.environ["DD_DOGSTATSD_URL"]
    if url.startswith("unix://"):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        s.connect(url[7:])
    else:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.connect(re.match(r"udp://(.*):(\d+)$", url).groups()[0:1] +
                  (int(url.rsplit(":", 1)[1]),))
    return s
def send(n, name="job"):
    s = client()
    for _ in range(n):
        s.send(("%s:1|c" % name).encode())
def ready():  # a signal between a handler's last look and pause() would be lost
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print("ready", flush=True)
"""


# In one write: the agent writes to the same pipe.
SAY_ENVIRONMENT = r"""
import os, sys
os.write(2, (" ".join(os.environ[k] for k in sys.argv[1:]) + "\n").encode())
"""


class Exec(Case):
    def run_job(self, job, intake=None, env=None, **kw):
        agent = self.agent(intake or "http://127.0.0.1:1", mode="exec",
                           job=job, env=env, ready=False, **kw)
        return agent, agent.wait()

    def python(self, code, **kw):
        return self.run_job([PY, "-c", SEND + code], **kw)

    def assert_arrived(self, intake, n, name="job"):
        self.assertEqual(intake.totals()["metrics"][name]["sum"], n)


class ExitCodes(Exec):
    def test_exit_codes_are_the_jobs(self):
        for code in (0, 1, 2, 3, 125, 126, 127, 255):
            _, rc = self.run_job(["/bin/sh", "-c", "exit %d" % code])
            self.assertEqual(rc, code)

    def test_a_job_that_a_signal_ends(self):
        for sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV,
                    signal.SIGPIPE, signal.SIGUSR1):
            _, rc = self.run_job(
                ["/bin/sh", "-c", "kill -%d $$" % sig])
            self.assertEqual(rc, 128 + sig)

    def test_a_command_that_is_missing(self):
        agent, rc = self.run_job(["retriever-no-such-command"])
        self.assertEqual(rc, 127)
        self.assertIn("No such file", "\n".join(agent.err.all()))

    def test_a_command_without_a_name(self):
        agent, rc = self.run_job([""])
        self.assertEqual(rc, 127)
        self.assertIn("No such file", "\n".join(agent.err.all()))

    def test_a_command_that_is_not_executable(self):
        for path in ("/etc/passwd", "/tmp"):
            _, rc = self.run_job([path])
            self.assertEqual(rc, 126)

    def test_a_file_without_a_format_is_not_given_to_a_shell(self):
        with tempfile.NamedTemporaryFile("w", dir="/tmp", delete=False) as f:
            f.write("exit 0\n")
        self.addCleanup(os.unlink, f.name)
        os.chmod(f.name, 0o755)
        _, rc = self.run_job([f.name])
        self.assertEqual(rc, 126)

    def test_no_command(self):
        _, rc = self.run_job([])
        self.assertEqual(rc, 125)


class AsIfUnwrapped(Exec):
    def test_arguments_are_untouched(self):
        args = ["", "a b", "--help", "-c", "*", "$HOME", "\xe9\n"]
        agent, rc = self.run_job(
            [PY, "-c", "import sys; sys.exit(sys.argv[1:] != %r)" % args,
             *args])
        self.assertEqual(rc, 0, agent.err.all())

    def test_stdin_reaches_the_job(self):
        r, w = os.pipe()
        os.write(w, b"hello")
        os.close(w)
        _, rc = self.run_job(
            [PY, "-c", "import sys; sys.exit(sys.stdin.read() != 'hello')"],
            stdin=r)
        os.close(r)
        self.assertEqual(rc, 0)

    def test_output_is_the_jobs_own(self):
        agent = self.agent("http://127.0.0.1:1", mode="exec", ready=False,
                           job=["/bin/echo", "out"], stdout=subprocess.PIPE)
        self.assertEqual(agent.proc.stdout.read(), b"out\n")
        agent.proc.stdout.close()
        self.assertEqual(agent.wait(), 0)

    def closed_descriptors(self, which):
        code = ("import os\n"
                "print(sorted(int(f) for f in os.listdir('/proc/self/fd')))")
        script = "exec %s %s" % (which, '"$@" 9>&1 | cat')
        env = {k: v for k, v in os.environ.items() if not k.startswith("DD_")}
        env["DD_DOGSTATSD_PORT"] = "__random__"
        env["DD_DOGSTATSD_SOCKET"] = ""
        job = [PY, "-c", code]
        bare = subprocess.run(["/bin/sh", "-c", script, "sh", *job], env=env,
                              stdout=subprocess.PIPE, timeout=30)
        ours = subprocess.run(
            ["/bin/sh", "-c", script, "sh", BINARY, "exec", "--", *job],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            if "2>&-" not in which else None, timeout=30)
        return bare.stdout, ours.stdout

    def test_descriptors_are_those_of_the_caller(self):
        for which in ("", "<&-", "<&- 2>&-"):
            bare, ours = self.closed_descriptors(which)
            self.assertEqual(bare, ours, which)

    def test_mask_and_dispositions_are_those_of_the_caller(self):
        code = ("import re\n"
                "s = open('/proc/self/status').read()\n"
                "print(re.findall(r'(Sig(?:Blk|Ign|Cgt)):\\s*(\\w+)', s))")
        script = "trap '' PIPE USR2; exec \"$@\""
        # The interpreter sets handlers of its own; both runs have them.
        job = ["/bin/sh", "-c", script, "sh", PY, "-c", code]
        wrap = ["/bin/sh", "-c", script, "sh", BINARY, "exec", "--"]
        env = {k: v for k, v in os.environ.items() if not k.startswith("DD_")}
        env.update(DD_DOGSTATSD_PORT="0", DD_DOGSTATSD_SOCKET="")

        def run(argv):
            return subprocess.run(argv, env=env, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, timeout=30).stdout

        self.assertEqual(run(job), run(wrap + job))

    def test_a_caller_that_ignores_sigchld(self):
        # The kernel tells such a process of no child's end; the disposition
        # is inherited, and the job must find it as it was.
        code = ("import signal, sys\n"
                "sys.exit(7 if signal.getsignal(signal.SIGCHLD) == "
                "signal.SIG_IGN else 1)")
        old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            agent = self.agent("http://127.0.0.1:1", mode="exec", ready=False,
                               job=[PY, "-c", code])
        finally:
            signal.signal(signal.SIGCHLD, old)
        self.assertEqual(agent.wait(20), 7, agent.err.lines)

    def test_session_group_and_parent(self):
        code = ("import os, sys\n"
                "sys.exit(0 if os.getsid(0) == %d and os.getpgid(0) == "
                "os.getpgid(os.getppid()) else 1)" % os.getsid(0))
        _, rc = self.run_job([PY, "-c", code])
        self.assertEqual(rc, 0)

    def test_environment_is_completed_and_not_overwritten(self):
        agent, rc = self.run_job(
            [PY, "-c", SAY_ENVIRONMENT, "DD_AGENT_HOST", "DD_DOGSTATSD_URL",
             "DD_DOGSTATSD_PORT"])
        self.assertEqual(rc, 0, agent.err.all())
        agent.err.wait_for(r"127\.0\.0\.1 unix://%s [1-9]\d*" %
                           re.escape(agent.uds))
        _, rc = self.run_job(
            [PY, "-c", "import os, sys\n"
             "sys.exit(os.environ['DD_AGENT_HOST'] != 'other' or "
             "os.environ['DD_DOGSTATSD_URL'] != 'udp://other:1')"],
            env={"DD_AGENT_HOST": "other", "DD_DOGSTATSD_URL":
                 "udp://other:1"})
        self.assertEqual(rc, 0)


    def test_the_job_is_told_the_address_that_is_bound(self):
        for host, url in (("127.0.0.2", r"udp://127\.0\.0\.2:\d+"),
                          ("0.0.0.0", r"udp://127\.0\.0\.1:\d+"),
                          ("::1", r"udp://\[::1\]:\d+")):
            if host == "::1" and not os.path.exists("/proc/net/if_inet6"):
                self.skipTest("no IPv6 here")
            agent, rc = self.run_job(
                [PY, "-c", SAY_ENVIRONMENT, "DD_AGENT_HOST",
                 "DD_DOGSTATSD_URL"],
                env={"DD_DOGSTATSD_SOCKET": "", "DD_BIND_HOST": host})
            self.assertEqual(rc, 0, agent.err.all())
            agent.err.wait_for(r"^%s %s$" % (
                "127.0.0.1" if host == "0.0.0.0" else re.escape(host), url))


class Identity(Exec):
    """Two jobs of one host: their series are the same to the intake."""
    WARNING = r" WARN .*under the same identity.* host=twin "
    ENV = {"DD_HOSTNAME": "twin"}
    APART = {"RETRIEVER_TEST_SECONDS": "/nonexistent"}  # as another user's

    def beside(self, intake, **env):
        agent, rc = self.run_job(["/bin/true"], intake=intake,
                                 env={**self.ENV, **env})
        self.assertEqual(rc, 0)
        return [x for x in agent.err.all() if re.search(self.WARNING, x)]

    def first(self, intake, **env):
        agent = self.agent(intake, mode="exec", stdin=subprocess.PIPE,
                           job=["/bin/cat"], env={**self.ENV, **env})
        eventually(agent.worker_pid, what="a worker")
        return agent

    def test_who_shares_seconds_too_is_not(self):
        intake = self.intake()
        first = self.first(intake)
        self.assertEqual(self.beside(intake), [])
        self.assertEqual(len(self.beside(intake, **self.APART)), 1)
        first.proc.stdin.close()
        self.assertEqual(first.wait(), 0)
        first = self.first(intake, **self.APART)
        first.err.wait_for("used seconds are remembered nowhere")
        self.assertEqual(len(self.beside(intake)), 1)

    def test_who_shares_one_is_told(self):
        intake = self.intake()
        self.ENV = {**self.ENV, **self.APART}
        first = self.first(intake)
        self.assertEqual(len(self.beside(intake)), 1)
        self.assertEqual(self.beside(intake, DD_INSTANCE="b"), [])
        self.assertEqual(self.beside(intake, DD_HOSTNAME="other"), [])
        self.assertEqual(self.beside(self.intake()), [])
        first.proc.stdin.close()
        self.assertEqual(first.wait(), 0)
        self.assertEqual(self.beside(intake), [])


class OneAfterTheOther(Exec):
    """Jobs of one host that count the same series, sooner than each could have a
    second of the clock for itself: the intake keeps one value for each second."""
    ENV = {"DD_STOP_QUIET_MS": "20", "DD_HOSTNAME": "looped"}
    COUNT = [PY, "-c", SEND + "send(1)"]
    # One after the other, also as series of a second type.
    TWO_TYPES = [PY, "-c", SEND + "send(1)\nclient().send(b'job:0|g\\nx:1|g')"]

    def assert_counted(self, intake, n):
        totals = intake.stop()
        self.assertEqual(totals["replaced_points"], 0, totals)
        self.assertEqual(self.sum_of(totals, "job"), n)

    def in_a_row(self, n, job, **env):
        intake = self.intake()
        for _ in range(n):
            agent, rc = self.run_job(job, intake=intake,
                                     env={**self.ENV, **env})
            self.assertEqual(rc, 0)
            self.assert_all_delivered(agent.receipt())
        return intake

    def test_each_of_twenty_is_counted(self):
        """In the place of the product, which the other tests do not use."""
        intake = self.in_a_row(20, self.COUNT, RETRIEVER_TEST_SECONDS=None)
        self.assert_counted(intake, 20)

    def test_so_is_a_series_of_two_types(self):
        self.assert_counted(self.in_a_row(8, self.TWO_TYPES), 8)

    def test_agents_of_both_forms_take_turns(self):
        """`run` and `exec`, with a run_path and without."""
        intake = self.intake()
        path = tempfile.mkdtemp(prefix="rt-run-")
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        for i in range(8):
            env = {**self.ENV, "DD_RUN_PATH": path if i & 2 else ""}
            if i & 1:
                agent = self.agent(intake, env=env)
                u = Uds(agent.uds)
                u.send("job:1|c")
                u.close()
                agent.stop()
            else:
                agent, rc = self.run_job(self.COUNT, intake=intake, env=env)
                self.assertEqual(rc, 0)
            self.assert_all_delivered(agent.receipt())
        self.assert_counted(intake, 8)

    def test_so_is_each_of_twenty_side_by_side(self):
        intake = self.intake()
        agents = [self.agent(intake, mode="exec", job=self.COUNT, ready=False,
                             env=self.ENV) for _ in range(20)]
        for agent in agents:
            self.assertEqual(agent.wait(), 0)
        self.assert_counted(intake, 20)

    def test_a_job_that_goes_on_beside_others(self):
        """Its parts and theirs; its worker is killed, too."""
        intake = self.intake()
        agent = self.agent(intake, env=self.ENV)
        u = Uds(agent.uds)
        for i in range(6):
            u.send("job:1|c")
            other, rc = self.run_job(self.COUNT, intake=intake, env=self.ENV)
            self.assertEqual(rc, 0)
            if i % 2 == 0:
                agent.flush()
                continue
            pid = eventually(agent.worker_pid, what="a worker")
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: agent.worker_pid() not in (None, pid),
                       what="a successor")
        u.close()
        self.assert_all_delivered(agent.stop())
        self.assert_counted(intake, 12)

    def test_where_nothing_can_be_kept_the_job_runs(self):
        """... and is delivered, as before there was such a memory."""
        folder = tempfile.mkdtemp(prefix="rt-place-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        inside = os.path.join(folder, "retriever-%d" % os.geteuid())
        os.symlink("/", inside)
        for place in ("/nonexistent", "/proc", "/dev/null", folder):
            intake = self.in_a_row(1, self.COUNT, RETRIEVER_TEST_SECONDS=place)
            self.assert_counted(intake, 1)
        self.assertEqual(os.listdir(folder), [os.path.basename(inside)])


class TelemetryNeverFailsTheJob(Exec):
    def test_no_api_key(self):
        agent, rc = self.python("send(5); sys.exit(4)",
                                env={"DD_API_KEY": None})
        self.assertEqual(rc, 4)
        self.assertEqual(agent.receipt()["dropped"], {"no_api_key": 5})
        warnings = [x for x in agent.err.all() if " WARN " in x]
        self.assertEqual(len([x for x in warnings if "api_key" in x]), 1,
                         warnings)

    def test_a_bad_setting(self):
        agent, rc = self.run_job(["/bin/sh", "-c", "exit 6"],
                                 env={"DD_STOP_TIMEOUT": "soon"})
        self.assertEqual(rc, 6)
        agent.err.wait_for("stop_timeout")

    def test_a_taken_port(self):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", 0))
        self.addCleanup(s.close)
        agent, rc = self.run_job(
            ["/bin/sh", "-c", "exit 7"],
            env={"DD_DOGSTATSD_PORT": s.getsockname()[1]})
        self.assertEqual(rc, 7)
        agent.err.wait_for("another agent holds it")

    def test_a_run_path_that_cannot_be_made(self):
        agent, rc = self.run_job(["/bin/sh", "-c", "exit 8"],
                                 env={"DD_RUN_PATH": "/proc/nowhere"})
        self.assertEqual(rc, 8)
        agent.err.wait_for("WARN .*run_path .*the job runs")
        self.assertEqual([l for l in agent.err.all() if " ERROR " in l], [])

    def test_a_worker_that_dies_does_not_touch_the_job(self):
        intake = self.intake()
        agent = self.agent(intake, mode="exec", stdout=subprocess.PIPE, job=[
            PY, "-c", SEND + "send(100)\nprint('half', flush=True)\n"
            "sys.stdin.readline()\nsend(100)\nsys.exit(9)"],
            stdin=subprocess.PIPE)
        self.assertEqual(agent.proc.stdout.readline(), b"half\n")
        agent.proc.stdout.close()

        for _ in range(3):
            pid = eventually(agent.worker_pid, what="a worker")
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: agent.worker_pid() not in (None, pid),
                       what="a successor")
        agent.proc.stdin.write(b"\n")
        agent.proc.stdin.close()
        self.assertEqual(agent.wait(), 9)
        self.assert_all_delivered(agent.receipt())
        self.assertEqual(agent.receipt()["worker_deaths"], 3)
        self.assert_arrived(intake, 200)


class LastWords(Exec):
    def test_a_burst_right_before_the_end(self):
        for url in ("unix", "udp"):
            intake = self.intake()
            env = {} if url == "unix" else {"DD_DOGSTATSD_SOCKET": ""}
            agent, rc = self.python("send(200); os._exit(3)", intake=intake,
                                    env=env)
            self.assertEqual(rc, 3)
            self.assert_all_delivered(agent.receipt())
            self.assertEqual(agent.receipt()["reason"], "job_exit")
            self.assert_arrived(intake, 200)

    def test_an_orphan_that_sends_after_the_job(self):
        intake = self.intake()
        agent, rc = self.python(
            "job = os.getpid()\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    while os.getppid() == job: pass\n"
            "    send(50, 'orphan')\n"
            "    os._exit(0)\n"
            "send(10)\nos._exit(0)", intake=intake)
        self.assertEqual(rc, 0)
        self.assert_all_delivered(agent.receipt())
        self.assert_arrived(intake, 10)
        self.assert_arrived(intake, 50, "orphan")

    def test_descendants_that_cannot_be_counted_may_still_send(self):
        """They get the time that a service's unknown senders get."""
        tmp = tempfile.mkdtemp(prefix="rt-exec-")
        self.addCleanup(shutil.rmtree, tmp, True)
        lib = compile_preload(tmp, "nochildren")
        agent, rc = self.run_job(
            ["/bin/sh", "-c", "exit 3"], intake=self.intake(),
            env={"LD_PRELOAD": lib, "DD_STOP_QUIET_MS": 900})
        self.assertEqual(rc, 3)
        self.assertGreaterEqual(agent.receipt()["duration_ms"], 900)
        said = [l for l in agent.err.all() if "stop_quiet_ms" in l]
        self.assertEqual(len(said), 1, agent.err.all())

    def signalled(self, code, intake, **kw):
        agent = self.agent(intake, mode="exec", stdout=subprocess.PIPE,
                           job=[PY, "-c", SEND + code], **kw)
        self.assertEqual(agent.proc.stdout.readline(), b"ready\n")
        agent.proc.stdout.close()
        agent.proc.send_signal(signal.SIGTERM)
        return agent, agent.wait()

    def test_a_burst_after_sigterm(self):
        intake = self.intake()
        agent, rc = self.signalled(
            "ready()\n"
            "signal.sigwait([signal.SIGTERM])\n"
            "send(300)\n"
            "os._exit(11)", intake)
        self.assertEqual(rc, 11)
        self.assert_all_delivered(agent.receipt())
        self.assert_arrived(intake, 300)

    def test_a_job_that_is_silent_for_two_seconds_after_sigterm(self):
        intake = self.intake()
        agent, rc = self.signalled(
            "send(10)\n"
            "ready()\n"
            "signal.sigwait([signal.SIGTERM])\n"
            "time.sleep(2)\n"  # pace: the silence under test
            "send(100)\n"
            "os._exit(12)", intake)
        self.assertEqual(rc, 12)
        self.assert_all_delivered(agent.receipt())
        self.assert_arrived(intake, 110)

    def test_a_job_that_outlives_the_budget_is_not_cut_short(self):
        intake = self.intake()
        t0 = time.monotonic()
        agent, rc = self.signalled(
            "send(10)\n"
            "ready()\n"
            "signal.sigwait([signal.SIGTERM])\n"
            "time.sleep(2.5)\n"  # pace: longer than the budget
            "send(100)\n"
            "os._exit(13)", intake, env={"DD_STOP_TIMEOUT": 1})
        self.assertEqual(rc, 13)
        self.assertGreater(time.monotonic() - t0, 2.5)
        self.assert_all_delivered(agent.receipt())
        self.assert_arrived(intake, 110)

    def test_what_came_before_sigterm_is_delivered_while_the_job_goes_on(self):
        intake = self.intake()
        agent = self.agent(intake, mode="exec", stdout=subprocess.PIPE, job=[
            PY, "-c", SEND + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "send(70)\nprint('ready', flush=True)\nsys.stdin.readline()"],
            stdin=subprocess.PIPE)
        self.assertEqual(agent.proc.stdout.readline(), b"ready\n")
        agent.proc.stdout.close()
        agent.proc.send_signal(signal.SIGTERM)
        eventually(lambda: intake.totals()["metrics"].get(
            "job", {}).get("sum") == 70, what="delivery before the job's end")
        self.assertIsNone(agent.proc.poll())
        agent.proc.stdin.close()
        self.assertEqual(agent.wait(), 0)
        self.assert_all_delivered(agent.receipt())

    def test_a_job_that_dies_of_sigterm(self):
        intake = self.intake()
        agent, rc = self.signalled(
            "send(20)\nprint('ready', flush=True)\n"
            "while True: signal.pause()", intake)
        self.assertEqual(rc, 128 + signal.SIGTERM)
        self.assert_arrived(intake, 20)

    def test_an_intake_that_hangs_delays_the_end_by_the_budget_at_most(self):
        intake = self.intake("--script", ",".join(["stall"] * 50))
        t0 = time.monotonic()
        agent, rc = self.python("send(5); sys.exit(14)", intake=intake,
                                env={"DD_STOP_TIMEOUT": 2})
        self.assertEqual(rc, 14)
        self.assertLess(time.monotonic() - t0, 4)
        self.assertEqual(agent.receipt()["dropped"], {"deadline": 5})


class Signals(Exec):
    def test_every_signal_reaches_the_job(self):
        code = (
            "import signal, sys\n"
            "wanted = (1, 2, 3, 10, 12, 14, 15, 28, 34, 50)\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, wanted)\n"
            "print('ready', flush=True)\n"
            "while True:\n"
            "    n = signal.sigwait(wanted)\n"
            "    print(int(n), flush=True)\n"
            "    if n == signal.SIGTERM: sys.exit(0)")
        agent = self.agent("http://127.0.0.1:1", mode="exec", ready=False,
                           job=[PY, "-c", code], stdout=subprocess.PIPE)
        out = agent.proc.stdout
        self.assertEqual(out.readline(), b"ready\n")
        for n in (1, 2, 3, 10, 12, 14, 28, 34, 50, 15):
            agent.proc.send_signal(n)
            self.assertEqual(int(out.readline()), n)
        out.close()
        self.assertEqual(agent.wait(), 0)

    def test_zombies_of_others_are_reaped(self):
        agent, rc = self.python(
            "for _ in range(20):\n"
            "    if os.fork() == 0:\n"
            "        if os.fork() == 0: os._exit(0)\n"
            "        os._exit(0)\n"
            "    os.wait()\n"
            "me = os.getppid()\n"
            "path = '/proc/%d/task/%d/children' % (me, me)\n"
            "end = time.monotonic() + 10\n"
            "while len(open(path).read().split()) > 2:\n"
            "    assert time.monotonic() < end\n")
        self.assertEqual(rc, 0, agent.err.all())

    def test_the_group_gets_the_signal_when_asked(self):
        code = ("import os, signal, subprocess, sys\n"
                "p = subprocess.Popen(['/bin/sleep', '60'])\n"
                "signal.signal(signal.SIGTERM, lambda *_: None)\n"
                "print('ready', flush=True)\n"
                "sys.exit(p.wait() != -signal.SIGTERM)")
        agent = self.agent("http://127.0.0.1:1", mode="exec", ready=False,
                           job=["/usr/bin/setsid", "--wait", BINARY, "exec",
                                "--", PY, "-c", code],
                           env={"DD_EXEC_SIGNAL_GROUP": "true"},
                           stdout=subprocess.PIPE)
        self.assertEqual(agent.proc.stdout.readline(), b"ready\n")
        agent.proc.stdout.close()
        inner = eventually(lambda: self.wrapper_under(agent.proc.pid),
                           what="the inner wrapper")
        os.kill(inner, signal.SIGTERM)
        self.assertEqual(agent.wait(), 0)

    def wrapper_under(self, pid):
        """The retriever that setsid started: parent of the group's leader."""
        for child in open("/proc/%d/task/%d/children" % (pid, pid)).read(
                ).split():
            cmd = open("/proc/%s/cmdline" % child, "rb").read().split(b"\0")
            if cmd[0] == BINARY.encode() and open(
                    "/proc/%s/comm" % child).read() == "retriever\n":
                return int(child)
            found = self.wrapper_under(int(child))
            if found:
                return found
        return None


class Terminal(Exec):
    """The job in a terminal session, as under `docker run -it` or a shell."""

    def start(self, code, env=None):
        pid, fd = pty.fork()
        if pid == 0:
            e = {k: v for k, v in os.environ.items()
                 if not k.startswith("DD_")}
            e.update(DD_DOGSTATSD_PORT="__random__", DD_DOGSTATSD_SOCKET="",
                     DD_API_KEY="0" * 32, DD_DD_URL="http://127.0.0.1:1",
                     DD_STOP_TIMEOUT="2")
            e.update(env or {})
            os.execve(BINARY, [BINARY, "exec", "--", PY, "-c", code], e)
        self.addCleanup(os.close, fd)
        self.text = b""
        self.fd = fd
        return pid

    def read_until(self, what, timeout=20):
        end = time.monotonic() + timeout
        while what not in self.text:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                self.fail("%r not in %r" % (what, self.text))
            try:
                self.text += os.read(self.fd, 4096)
            except OSError:
                self.fail("%r not in %r" % (what, self.text))

    def test_ctrl_c_reaches_the_job_once(self):
        pid = self.start(
            "import signal, sys\n"
            "n = 0\n"
            "def got(*_):\n"
            "    global n\n"
            "    n += 1\n"
            "signal.signal(signal.SIGINT, got)\n"
            "print('ready', sys.stdin.isatty(), flush=True)\n"
            "sys.stdin.readline()\n"
            "print('count', n, flush=True)\n"
            "sys.exit(n)")
        self.read_until(b"ready True")
        os.write(self.fd, b"\x03")
        self.read_until(b"^C")
        os.write(self.fd, b"\n")
        self.read_until(b"count 1")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 1)

    def test_ctrl_z_stops_and_fg_continues(self):
        # A shell with job control between the terminal and us: an orphaned
        # group is never stopped by its terminal.
        code = ("import sys\nprint('ready', flush=True)\n"
                "sys.stdin.readline()\nprint('again', flush=True)\n"
                "sys.exit(5)")
        pid, fd = pty.fork()
        if pid == 0:
            e = dict(os.environ, DD_DOGSTATSD_PORT="__random__",
                     DD_DOGSTATSD_SOCKET="", DD_API_KEY="0" * 32,
                     DD_DD_URL="http://127.0.0.1:1", DD_STOP_TIMEOUT="2",
                     PS1="$ ", CODE=code, BIN=BINARY)
            os.execve("/bin/bash", ["bash", "--norc", "--noediting", "-i"], e)
        self.addCleanup(os.close, fd)
        self.text, self.fd = b"", fd
        os.write(fd, b'"$BIN" exec -- /usr/bin/python3 -c "$CODE"\n')
        self.read_until(b"ready\r\n")
        os.write(fd, b"\x1a")
        self.read_until(b"Stopped")
        os.write(fd, b"fg\n")
        self.text = b""
        self.read_until(b"exec --")
        os.write(fd, b"\n")
        self.read_until(b"again")
        os.write(fd, b"echo code=$?\n")
        self.read_until(b"code=5")
        os.write(fd, b"exit\n")
        os.waitpid(pid, 0)
