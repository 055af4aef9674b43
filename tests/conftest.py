"""For all tests: one thread, so that results and times do not hang on the machine; no model hub, as none needs it."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # for this process, if torch is not loaded yet, and for those that tests start
os.environ.pop("REFEREE_LOAD_PLUGINS", None)  # a person's allow list is no part of the tests
