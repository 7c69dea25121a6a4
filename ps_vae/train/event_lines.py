"""What a server says of the events of its state machines."""

from ps_vae.lines import ERROR, INFO, WARNING, Line
from ps_vae.ps.outbox import Event, Member, Refused, RunEnded, Told

__all__ = ["line_of"]

# Of a member that is gone, or has not done what it had to do, or computes other bits than the rest.
_BAD_NEWS = ("lost", "late", "in trouble", "differs")

# Answers to those who have not heard yet that somebody was lost, or was started again; they are counted all the same.
_ROUTINE = ("unknown-session", "not-here", "not-following")


def line_of(event: Event) -> Line | None:
    """The line that tells of `event`; None where it is no news to people."""
    match event:
        case Told(version, values):
            figures = ", ".join(f"{name} {value:.3f}" for name, value in values)
            text = "version {version:,}: validation {figures}"
            return Line("validation", text, version=version, figures=figures, values=dict(values))
        case Member(name, change, why):
            level = WARNING if change in _BAD_NEWS else INFO
            text = "{name} {change}: {why}" if why else "{name} {change}"
            kind = f"member-{change.replace(' ', '-')}"
            return Line(kind, text, level=level, name=name, change=change, why=why)
        case Refused(_, code) if code in _ROUTINE:
            return None
        case Refused(who, code, why):
            text = "refused a message of {who}: {code}: {why}"
            return Line("refused", text, level=WARNING, who=who, code=code, why=why)
        case RunEnded(failed, reason):
            level = ERROR if failed else INFO
            return Line("run-ended", "the run ends: {reason}", level=level, failed=failed, reason=reason)
    return None
