"""Durations in Go's spelling (`1m30s`), seconds inside.

Pure. Upstream counterpart: time.ParseDuration and Duration.String of Go's standard library, which every Kubernetes
duration in a file, a flag or configz goes through.
"""

import re

_UNIT_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
}
_PART = re.compile(r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)")
_LARGEST_NANOSECONDS = 2**63 - 1


def parse_duration(text: str) -> float:
    """Seconds of a Go duration; ValueError says what would be right."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total_ns, position = 0, 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None or not (part[1] or part[2]):
            break
        unit = _UNIT_NANOSECONDS[part[3]]
        fraction = part[2] or ""
        total_ns += int(part[1] or "0") * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        position = part.end()
    if not rest or position < len(rest):
        raise ValueError("not a duration: write a number and a unit, such as 300ms, 10s or 1h30m")
    if total_ns > _LARGEST_NANOSECONDS:
        raise ValueError("a duration of more than 292 years")
    return sign * total_ns / 1_000_000_000


def format_duration(seconds: float) -> str:
    """The shortest Go spelling: 90.0 is `1m30s`, 0.1 is `100ms`."""
    nanoseconds = round(seconds * 1_000_000_000)
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest < 1_000_000_000:
        unit = "ns" if rest < 1_000 else "µs" if rest < 1_000_000 else "ms"
        return f"{sign}{_decimal(rest, _UNIT_NANOSECONDS[unit])}{unit}"
    hours, rest = divmod(rest, _UNIT_NANOSECONDS["h"])
    minutes, rest = divmod(rest, _UNIT_NANOSECONDS["m"])
    text = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{text}{_decimal(rest, _UNIT_NANOSECONDS['s'])}s"


def _decimal(value: int, unit: int) -> str:
    """value/unit in decimal without trailing zeros; unit is a power of ten."""
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if unit > 1 else ""
    return f"{whole}.{digits}" if digits else str(whole)
