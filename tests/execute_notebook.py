"""Execute a notebook as Jupyter would, in this process and without Jupyter.

    python tests/execute_notebook.py docs/quickstart.ipynb

runs its cells in the current folder and writes what they show into the file.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
import types
from pathlib import Path
from typing import Any


def execute(notebook: dict[str, Any]) -> None:
    """Run the cells of code in order, and put what each prints and shows into its outputs."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    number = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        number += 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = _run("".join(cell["source"]), module, f"<cell {number}>")
        cell["execution_count"] = number
        cell["outputs"] = [
            *(
                [{"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())}]
                if printed.tell()
                else []
            ),
            *([_shown(value, number)] if value is not None else []),
        ]


def _run(source: str, module: types.ModuleType, name: str) -> Any:
    """Run a cell; the value of its last line, if that is an expression."""
    body = ast.parse(source, name).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), name, "exec"), module.__dict__)
    return eval(compile(ast.Expression(last.value), name, "eval"), module.__dict__) if last is not None else None


def _shown(value: Any, number: int) -> dict[str, Any]:
    data: dict[str, Any] = {"text/plain": _lines(repr(value))}
    if hasattr(value, "_repr_html_") and (html := value._repr_html_()):
        data["text/html"] = _lines(html)
        data["text/plain"] = [f"<{type(value).__name__}>"]
    if hasattr(value, "_repr_png_"):
        data["image/png"] = base64.b64encode(value._repr_png_()).decode()
    return {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    content = json.loads(file.read_text("utf-8"))
    execute(content)
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
