"""Making a pipeline that runs where its options say, and on this machine where they say nothing."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle

_LOCAL = frozenset({None, "DirectRunner", "direct"})


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """Return an empty pipeline for the runner of its options.

    Notes
    -----
    Beam's ``DirectRunner`` first tries another runner, Prism: a program that it downloads, and that knows nothing of
    ``--direct_num_workers``.  Here the name stands for what Beam falls back to, the runner that is written in Python:
    no download, and worker processes where they are asked for (``--direct_running_mode=multi_processing
    --direct_num_workers=N``).
    """
    if options.view_as(StandardOptions).runner not in _LOCAL:
        return beam.Pipeline(options=options)
    # Workers in processes of their own learn the options from here, as they do from Beam's own DirectRunner.
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return beam.Pipeline(fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(provision)), options)
