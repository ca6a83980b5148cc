// SPDX-License-Identifier: Apache-2.0
//
// Where the VMM and the emulation process meet.

import ArgumentParser
import Glibc
import SystemPackage

/// `--socket`, the same for both processes.
struct SocketOptions: ParsableArguments {
    @Option(
        name: .customLong("socket"),
        help: ArgumentHelp(
            "The socket at which the VMM and the emulation process meet. "
                + "(default: mmiofd.sock in $XDG_RUNTIME_DIR, else /tmp/mmiofd-UID.sock)", valueName: "path"))
    var chosen: String?

    /// The socket's file.
    var path: FilePath {
        if let chosen { return FilePath(chosen) }
        if let folder = Environment.runtimeFolder { return folder.appending("mmiofd.sock") }
        return FilePath("/tmp/mmiofd-\(getuid()).sock")
    }
}
