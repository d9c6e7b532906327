"""Arms the process with the fault that the test put into its environment; see faults.py."""

import json
import os
import sys
from pathlib import Path

if "NAS_KD_TEST_FAULT" in os.environ:
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from faults import arm

    arm(**json.loads(os.environ["NAS_KD_TEST_FAULT"]))
