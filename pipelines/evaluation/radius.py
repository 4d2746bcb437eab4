"""A threat's radius as people write it."""


def written(eps: float) -> str:
    """``"8/255"`` for a number of grey levels, else the decimal: ``"0.1"``, ``"0.5"``, ``"12"``."""
    levels = round(eps * 255)
    if float(f"{eps:.4g}") != eps and abs(eps * 255 - levels) < 1e-6:
        return f"{levels}/255"
    return f"{eps:g}"
