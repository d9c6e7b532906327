"""``python -m nas_kd``, the same as ``nas-kd``."""

from nas_kd.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
