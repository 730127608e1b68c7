# SPDX-License-Identifier: Apache-2.0
"""The bed's own helpers are in bed.py, those of all system tests in tests/lib/homeport.py."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, os.pardir, "lib")]
