"""A mount that ends, or is killed, and comes again in the same namespaces."""

import subprocess
from collections.abc import Callable

from harness.places import DIR
from harness.serving import Mount


class Lasting(Mount):
    """Its namespaces outlive its servers."""

    def kill(self) -> None:
        """kill -9 of the server; what it leaves mounted is taken away, so that the directory can be entered."""
        self.server.kill()
        self.server.wait()
        self._listener.join()
        self.end_programs()
        subprocess.run(self.command("umount", "--lazy", DIR), check=True)

    def again(self, options: str = "") -> None:
        """A new server, as after a boot or a crash. What the earlier one logged is forgotten."""
        assert self.server.poll() is not None
        if self.server.stderr is not None:
            self.server.stderr.close()
        self.end_programs()
        self.log = []
        self._serve(options)

    def clear(self) -> None:
        """No interfaces, also none that persist."""
        if not self.broken:
            self.clean()
            if self.server.poll() is None:
                for name in self.sh("ls bridge").split():
                    self.ctl(f"destroy {name}")
            for name in self.links():
                if name != "lo" and self.has(name):
                    self.ip(f"link del {name}")


LastingOnes = Callable[..., Lasting]
