# SPDX-License-Identifier: Apache-2.0
"""What the commands make of their arguments."""
import subprocess

from harness import BINARY, Case


def shell(words):
    return subprocess.run(["sh", "-c", words, BINARY], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60)


class Arguments(Case):
    def test_a_control_socket_without_a_mode_is_refused(self):
        r = shell('DD_API_KEY=%s "$0" check --set control_socket=@name' %
                  ("0" * 32))
        self.assertEqual(r.returncode, 2)
        self.assertRegex(r.stderr, r"control_socket: @name .*absolute path")
