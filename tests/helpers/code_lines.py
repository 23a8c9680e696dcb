"""Lines with code: no blank lines, comments or docstrings."""

from __future__ import annotations

import ast
import io
import tokenize
from functools import cache
from pathlib import Path

LAYOUT = {"COMMENT", "DEDENT", "ENCODING", "ENDMARKER", "INDENT", "NEWLINE", "NL"}


@cache
def measure(file: Path) -> tuple[int, int]:
    """Count the lines with code and the tokens in them."""
    source = file.read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    tokens = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if tokenize.tok_name[token.type] not in LAYOUT and token.start[0] not in docstrings:
            tokens += 1
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines), tokens
