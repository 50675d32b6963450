"""A table as it is kept and as it is read: CSV with raw values, Markdown and LaTeX with rounded ones."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from tabulate import tabulate

Row = Mapping[Any, Any]  # of the raw frame, by column
Columns = dict[str, Callable[[Row], str]]  # heading -> text of a raw row


@dataclass(frozen=True)
class Table:
    """A table as it is kept (`raw`) and, by `columns`, as it is read."""

    name: str
    caption: str
    raw: pd.DataFrame
    columns: Columns

    @property
    def shown(self) -> list[list[str]]:
        """Text of every cell, row by row."""
        return [[text(row) for text in self.columns.values()] for row in self.raw.to_dict("records")]

    @property
    def csv(self) -> str:
        """Raw values to six digits, on which every version of the numerical libraries agrees."""
        return str(
            self.raw.drop(columns="card", errors="ignore").to_csv(index=False, float_format="%.6g", lineterminator="\n")
        )

    @property
    def markdown(self) -> str:
        """GitHub's table, the caption under it."""
        body = tabulate(self.shown, list(self.columns), "github", disable_numparse=True)
        return f"{body}\n\n*{self.caption}*\n"

    def _repr_markdown_(self) -> str:  # how a notebook shows it
        return self.markdown

    @property
    def latex(self) -> str:
        """booktabs, ready for \\input."""
        style = pd.DataFrame(self.shown, columns=list(self.columns)).style.hide(axis="index")
        style = style.format(escape="latex").format_index(escape="latex", axis="columns")
        caption = "".join("\\" + c if c in "%_&#$" else c for c in self.caption)
        text = style.to_latex(hrules=True, caption=caption, label=f"tab:{self.name}", position_float="centering")
        return str(text).replace("<", "$<$")  # OT1 fonts have another sign there


def number(value: Any, digits: int = 3) -> str:
    """Significant digits without an exponent; a dash where there is no value."""
    if value is None or pd.isna(value):
        return "–"
    rounded = value if isinstance(value, int) else float(f"{value:.{digits}g}")
    if isinstance(value, int) or abs(rounded) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{rounded:.{max(0, digits - 1 - math.floor(math.log10(abs(rounded) or 1)))}f}"


def percent(value: Any) -> str:
    """A fraction in percent."""
    return "–" if pd.isna(value) else f"{100 * value:.2f} %"


def signed_points(value: Any) -> str:
    """A difference of fractions in percentage points."""
    return "–" if pd.isna(value) else f"{100 * value:+.2f}"


def p_value(value: Any) -> str:
    """Three decimals, or what it is below."""
    return "–" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def with_interval(estimate: Any, low: Any, high: Any, text: Callable[[Any], str]) -> str:
    """`estimate [low, high]`; a dash where there is none."""
    return "–" if pd.isna(estimate) else f"{text(estimate)} {between(low, high, text)}"


def between(low: Any, high: Any, text: Callable[[Any], str]) -> str:
    """`[low, high]`."""
    return "–" if pd.isna(low) else f"[{text(low)}, {text(high)}]"
