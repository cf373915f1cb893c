"""Pages that are followed to the letter: their code blocks, as a shell script that does what a reader does."""

from __future__ import annotations

import re
from dataclasses import dataclass

MARK = "== block"


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, what is to be done with it, and its lines."""

    language: str
    task: str
    text: str


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found = re.findall(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in found]


def script(page: list[Block], port: int) -> str:
    """Return the shell script of a reader who does what the blocks say, with a mark before each.

    port: where the program of a background block listens; the script goes on when it does.
    """
    lines = ["set -e"]
    for number, block in enumerate(page):
        lines.append(f"echo '{MARK} {number}'")
        match block.language, block.task.partition("=")[0]:
            case "console", "":
                lines += commands(block)
            case "console", "background":
                [program] = commands(block)
                lines += [f"{program} & background=$!", "trap 'kill $background' EXIT", _until_open(port)]
            case "python", "shell":
                lines.append(_fed("python manage.py shell", block.text))
            case "python", "file":
                lines.append(_fed(f"cat > {block.task.partition('=')[2]}", block.text))
            case "python", "append":
                lines.append(_fed(f"cat >> {block.task.partition('=')[2]}", block.text))
            case "text", "":
                pass  # what the block before prints
            case _:
                raise ValueError(f"no reader knows what to do with {block}")
    return "\n".join(lines)


def commands(block: Block) -> list[str]:
    """Return what is typed in a console block."""
    return [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]


def promised(page: list[Block]) -> dict[int, list[str]]:
    """Return the lines that each block is said to print."""
    lines: dict[int, list[str]] = {}
    for number, block in enumerate(page):
        if block.language == "console":
            lines[number] = [line for line in block.text.splitlines() if not line.startswith("$ ")]
        elif block.language == "text":
            lines[number - 1] = block.text.splitlines()
    return lines


def printed(output: str) -> dict[int, str]:
    """Return what each block of the script did print."""
    parts = re.split(rf"^{MARK} (\d+)$", output, flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def _fed(command: str, text: str) -> str:
    return f"{command} <<'END OF BLOCK'\n{text}\nEND OF BLOCK"


def _until_open(port: int) -> str:
    return f"timeout 30 bash -c 'until (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.05; done'"
