"""Run from a checkout or an installed tree without `site`: python -I -S .../dockershim/oci/__main__.py ..."""

import os
import sys

if not __package__:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from dockershim.oci.wrapper import main  # after the path that makes it findable

sys.exit(main())
