"""Answers to the exercises, right ones in several forms and wrong ones: one module a lesson, see test_exercises."""

from dataclasses import dataclass, field


@dataclass
class Case:
    """What the check cell of one exercise has to accept and to reject; `names` are what the lesson had defined."""

    right: list
    wrong: list
    names: dict = field(default_factory=dict)
