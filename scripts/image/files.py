"""What goes into an image, from the arguments that say so: DEST=SOURCE, DEST=->TARGET or DIR/=FOLDER, each a word.

--with-libraries before an entry takes along the shared libraries that the program asks for.
"""

import os
import re
import subprocess


def libraries(program):
    """Destination and source of each shared library, by the loader that the program names; none of a static one."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for path in re.findall(r"(/\S+) \(0x", listed):
        yield path.lstrip("/"), path


def entries(arguments):
    """(destination, source, link target) of everything that is asked for, each destination once and in order."""
    found, with_libraries = {}, False
    for argument in arguments:
        if argument == "--with-libraries":
            with_libraries = True
            continue
        destination, _, source = argument.partition("=")
        if source.startswith("->"):
            found[destination] = (None, source[2:])
        elif destination.endswith("/"):
            for name in sorted(os.listdir(source)):
                found[destination + name] = (os.path.realpath(os.path.join(source, name)), None)
        else:
            found[destination] = (source, None)
            if with_libraries:
                found.update((dest, (os.path.realpath(path), None)) for dest, path in libraries(source))
        with_libraries = False
    return sorted((destination, *what) for destination, what in found.items())
