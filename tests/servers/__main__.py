"""``python -m tests.servers`` says in one line what the tests on the clouds miss here, and ends with 3 if they do."""

from __future__ import annotations

import os
import sys

from tests.servers import find_missing

if missing := find_missing():
    print("The tests on Datastore, Firestore and Cloud Tasks are left out:", *missing)
    if os.environ.get("MASSMIGRATION_TEST_REQUIRE") == "all":
        print("They must not be: MASSMIGRATION_TEST_REQUIRE=all")
        sys.exit(1)
    sys.exit(3)
