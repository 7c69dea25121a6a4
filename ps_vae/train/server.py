"""The first server's program: it owns the run, its folder and its end."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import numpy as np

from ps_vae.jit import announce_compilation, start_numba
from ps_vae.lines import Line
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.partition import partition
from ps_vae.ps.transport import check_transport
from ps_vae.train.checkpoint import newest_version
from ps_vae.train.first_server import FirstServer, invitation
from ps_vae.train.key_folder import KeyFolder, check_open, say_who_is_let_in
from ps_vae.train.metrics_server import MetricsServer
from ps_vae.train.plan import Wishes
from ps_vae.train.processes import StopSignal, allow_many_files
from ps_vae.train.run_lock import hold
from ps_vae.train.server_options import ServerOptions
from ps_vae.train.start import settle, starting_point
from ps_vae.train.taking_up import check_unchanged, known_run, take_up
from ps_vae.train.trial import check_communication, with_communication
from ps_vae.train.update import fresh_state
from ps_vae.vae.layout import ParameterLayout

__all__ = ["serve"]

Say = Callable[[str], None]


def serve(wishes: Wishes, options: ServerOptions, *, say: Say, should_stop: StopSignal) -> dict[str, Any]:
    """Run a whole run as its first server; returns what `train --json` ends with.

    Raises UsageError, DataError or CheckpointError before anything is written, Unreachable where it cannot listen,
    SecurityError where strangers could come in.
    """
    with ExitStack() as held:
        return _serve(wishes, options, held, say, should_stop)


def _serve(
    wishes: Wishes, options: ServerOptions, held: ExitStack, say: Say, should_stop: StopSignal
) -> dict[str, Any]:
    """The same; what is held is let go of afterwards."""
    check_transport(options.transport)
    check_open(options.listen, options.keys, is_insecure=options.insecure)
    keys = None if options.keys is None else KeyFolder(options.keys).server_keys(say)
    check_communication(options.communication, wishes, resumes=options.resume)
    options.check()
    metrics = None if options.metrics is None else held.enter_context(closing(MetricsServer(options.metrics)))
    announce_compilation(say)
    start_numba()
    allow_many_files()
    folder, config, data = settle(wishes, options.run_dir, resumes=options.resume)
    options.check_for(config.consistency)
    if options.resume:
        # Before anything in it is read: another server may be writing.
        held.enter_context(hold(folder.path, say=say))
        folder.tidy()
    layout = ParameterLayout(config.model)
    slices = partition(layout.size, options.shards + options.remote_shards)
    known = known_run(folder, layout.size) if options.resume else None
    found = None
    chooses = options.communication == "auto"
    endpoint = Endpoint(options.listen, 4 * (layout.size if chooses else max(piece.size for piece in slices)), keys)
    try:
        say_who_is_let_in(endpoint.address, options.keys, say)
        if known is not None:
            was, least = folder.config(), newest_version(folder.checkpoints)
            found = take_up(known, was, layout.size, endpoint, least=least, say=say, should_stop=should_stop)
            if found is not None:
                check_unchanged(folder, found, was, config, len(slices))
        if found is None:
            known = None
            state, origin = starting_point(config, data, layout, folder, resumes=options.resume, say=say)
        else:
            # Only its form is of use.
            state = fresh_state(config, np.zeros(layout.size, np.float32))
            origin = f"taken up from its servers at version {found.lowest:,}"
        if chooses:
            text = "reached at {address}; {invitation}"
            say(Line("reached", text, address=endpoint.address, invitation=invitation(endpoint)))
            config = with_communication(
                config,
                wishes,
                data,
                state.weights,
                endpoint,
                transport=options.transport,
                await_workers=options.await_workers,
                say=say,
                should_stop=should_stop,
            )
            state = fresh_state(config, state.weights)
        if options.resume:
            folder.write_config(config)
            folder.forget_result()
        else:
            folder.make()
            held.enter_context(hold(folder.path, say=say))
            folder.create(config)
        text = "{run_dir}: {data}; {parameters:,} parameters; {origin}; {steps:,} steps"
        about: dict[str, Any] = {"run_dir": str(folder.path), "data": data.description, "origin": origin}
        say(Line("run", text, parameters=layout.size, steps=config.steps, **about))
        if metrics is not None:
            say(Line("metrics", "metrics at {url}", url=metrics.url))
        run = FirstServer(config, layout, folder, options, endpoint, state, metrics, say, should_stop, known, found)
    except BaseException:
        endpoint.close()
        raise
    return run.run()
