"""A mount whose server ends, or is killed, and starts again in the same namespaces."""

import subprocess
from collections.abc import Callable

from harness.places import DIR
from harness.serving import Mount


class Lasting(Mount):
    """A mount whose namespaces outlive its servers."""

    def kill(self) -> None:
        """Kill the server with SIGKILL and detach the dead mount, so that the directory is usable again."""
        self.server.kill()
        self.server.wait()
        self._listener.join()
        self.end_programs()
        subprocess.run(self.command("umount", "--lazy", DIR), check=True)

    def again(self, options: str = "") -> None:
        """Start a new server, as after a boot or a crash, with an empty log."""
        assert self.server.poll() is not None
        if self.server.stderr is not None:
            self.server.stderr.close()
        self.end_programs()
        self.log = []
        self._serve(options)

    def clear(self) -> None:
        """Remove all interfaces, persistent ones too."""
        if not self.broken:
            self.clean()
            if self.server.poll() is None:
                for name in self.sh("ls bridge").split():
                    self.ctl(f"destroy {name}")
            self.delete_links(*(name for name in self.links() if name != "lo"))


LastingOnes = Callable[..., Lasting]
