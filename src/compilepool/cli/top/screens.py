"""What `top` shows in front of its tables: a text, or a question."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static


class TextScreen(ModalScreen[None]):
    """A text to read: stacks, or a failure.

    Args:
        title: what it is.
        text: the text.
    """

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,enter", "dismiss", "Close")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title = title
        self.text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Text(f"{self._title}   (Esc closes)", style="bold"), classes="title")
            with VerticalScroll():
                yield Static(Text(self.text))


class Question(ModalScreen[bool]):
    """A question to answer by y or n.

    Args:
        question: the question.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "answer(True)", "Yes"),
        ("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        with Vertical(classes="question"):
            yield Static(Text(f"{self._question}   y / n"))

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)
