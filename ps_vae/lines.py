"""What a program says to whoever runs it: lines for people that other programs can read, too.

A line is text, so whatever takes text takes it. It also knows what the text was made of, the name of what happened and
the values, which is what a log of JSON lines has. Text that is nothing else is a line of the event `message`.
"""

from typing import Any, Self

__all__ = ["ERROR", "INFO", "MESSAGE", "WARNING", "Line"]

INFO, WARNING, ERROR = "info", "warning", "error"
MESSAGE = "message"


class Line(str):
    """`template`, as for str.format, with `fields` filled in.

    event   what happened, the same for all lines of a kind: `checkpoint-written`
    level   INFO, WARNING or ERROR
    fields  values by name: text, numbers, None, and lists and dicts of these
    """

    event: str
    level: str
    fields: dict[str, Any]

    def __new__(cls, event: str, template: str, /, *, level: str = INFO, **fields: Any) -> Self:
        line = super().__new__(cls, template.format_map(fields))
        line.event, line.level, line.fields = event, level, fields
        return line

    @classmethod
    def of(cls, text: str) -> "Line":
        """The line itself, or a MESSAGE of text that is none."""
        if isinstance(text, Line):
            return text
        line = Line(MESSAGE, "{text}", text=text)
        line.fields = {}
        return line
