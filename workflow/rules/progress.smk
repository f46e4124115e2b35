# At a terminal, a bar of the jobs stands below Snakemake's messages. (snakemake-logger-plugin-rich 0.5.1
# estimates no time left, and leaves a log without a line per job.)

import atexit
import logging
import os

from snakemake.logging import get_event
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent


class Progress(logging.Handler):
    """Tells a bar of every job that starts or ends."""

    bar = None

    def start(self):
        """Show the bar, if Snakemake's messages go to a terminal and progress is wanted."""
        logger = workflow.logger_manager.logger
        quiet = set(workflow.output_settings.quiet or [])
        shown = [h for h in logger.handlers if h.name == "DefaultStreamHandler"]
        if (
            not shown  # --logger names another one
            or not shown[0].is_tty
            or os.environ.get("TERM") == "dumb"
            or quiet & {Quietness.ALL, Quietness.PROGRESS}
        ):
            return

        from input_hessian.experiment.job_bar import JobBar

        (messages,) = shown
        jobs = workflow.dag.needrun_jobs()
        self.bar = bar = JobBar(
            {workflow.dag.jobid(job): job.rule.name for job in jobs}, messages.stream
        )
        atexit.register(bar.close)
        logger.addHandler(self)
        write = messages.emit

        def emit(record):
            with bar.aside():
                write(record)

        messages.emit = emit
        # What the bar says.
        said = LogEvent.PROGRESS, LogEvent.JOB_FINISHED
        messages.addFilter(lambda record: get_event(record) not in said)

    def stop(self):
        """Remove the bar."""
        if self.bar:
            self.bar.close()

    def emit(self, record):
        event = get_event(record)
        if event == LogEvent.JOB_INFO:
            self.bar.start(record.jobid, record.rule_name)
        elif event == LogEvent.JOB_FINISHED:
            self.bar.finish(record.job_id)
        elif event == LogEvent.JOB_ERROR:
            self.bar.fail(record.jobid)


progress = Progress()
