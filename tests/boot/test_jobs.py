"""Start jobs on the console."""

import pytest

from vmtests.boot.jobs import Jobs
from vmtests.boot.stages import normalise


def running(*lines: str, limit: int = 256) -> tuple[str, ...]:
    """Return the jobs that run after these lines."""
    jobs = Jobs(limit)
    for line in lines:
        jobs.line(normalise(line).text)
    return jobs.running


START = "         Starting ssh.service - OpenBSD Secure Shell server..."


class TestJobs:
    """The set of running jobs."""

    def test_a_job_runs_from_its_start(self) -> None:
        """A start line opens a job."""
        assert running(START) == ("ssh.service - OpenBSD Secure Shell server",)

    @pytest.mark.parametrize(
        "result",
        [
            "[  OK  ] Started ssh.service - OpenBSD Secure Shell server.",
            "[  OK  ] Finished ssh.service - OpenBSD Secure Shell server.",
            "[FAILED] Failed to start ssh.service - OpenBSD Secure Shell server.",
            "[ TIME ] Timed out starting ssh.service - OpenBSD Secure Shell server.",
            "[DEPEND] Dependency failed for ssh.service - OpenBSD Secure Shell server.",
            "[  OK  ] Stopped ssh.service - OpenBSD Secure Shell server.",
            "[ SKIP ] Skipped ssh.service - OpenBSD Secure Shell server.",
            "systemd[1]: ssh.service - OpenBSD Secure Shell server was skipped because of a condition.",
        ],
    )
    def test_each_result_ends_it(self, result: str) -> None:
        """Whatever becomes of a job, its result line closes it."""
        assert running(START, result) == ()

    def test_descriptions_alone(self) -> None:
        """NixOS prints descriptions only, mounts without indentation."""
        assert running("Mounting /sysroot/nix/store...", "[  OK  ] Mounted /sysroot/nix/store.") == ()

    def test_lines_that_are_cut_at_80_columns(self) -> None:
        """A start and a result that systemd cut at different places are one job."""
        assert (
            running(
                "         Starting systemd-tmpfiles-setup-d\u2026 Static Device Nodes in /dev gracefully...",
                "[  OK  ] Finished systemd-tmpfiles-setup-de\u2026Static Device Nodes in /dev gracefully.",
            )
            == ()
        )

    def test_one_line_cut_and_the_other_whole(self) -> None:
        """Only the longer of two lines needs to be cut."""
        assert (
            running(
                "         Starting a-rather-long-name.service - With a Description...",
                "[FAILED] Failed to start a-rather-lo\u2026ervice - With a Description.",
            )
            == ()
        )

    def test_another_job_stays(self) -> None:
        """A result closes its own job only, cut or not."""
        assert running(
            "         Starting other.service - Other...",
            START,
            "[  OK  ] Started ssh.serv\u2026Secure Shell server.",
        ) == ("other.service - Other",)

    def test_a_result_without_a_start_is_nothing(self) -> None:
        """A unit that starts at once has no start line."""
        assert running("[  OK  ] Started ssh.service - OpenBSD Secure Shell server.") == ()

    def test_the_number_is_bounded(self) -> None:
        """A guest that only ever starts jobs does not fill the memory."""
        assert running(*(f"Starting job {n}..." for n in range(5)), limit=2) == ("job 3", "job 4")
