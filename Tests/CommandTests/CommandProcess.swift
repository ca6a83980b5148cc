// SPDX-License-Identifier: Apache-2.0
//
// The command line as a process, for what it does with its descriptors.

import Glibc
import SystemPackage
import Testing

/// A run of mmiofd that has ended.
struct CommandProcess {
    /// What it wrote to standard error.
    let errorText: String
    /// Its exit status.
    let status: Int32

    /// Runs the mmiofd beside these tests, from a shell.
    ///
    /// - Parameters:
    ///   - arguments: as a shell takes them.
    ///   - output: where its standard output goes.
    init(_ arguments: String, output: String) throws {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let length = unsafe readlink("/proc/self/exe", &buffer, buffer.count)
        try #require(length > 0)
        var program = FilePath(String(decoding: buffer.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self))
        program.removeLastComponent()
        program.append("mmiofd")
        guard let pipe = unsafe popen("'\(program)' \(arguments) 2>&1 >\(output)", "re") else {
            throw Errno(rawValue: errno)
        }
        var text: [UInt8] = []
        while true {
            let byte = unsafe fgetc(pipe)
            guard byte != EOF else { break }
            text.append(UInt8(truncatingIfNeeded: byte))
        }
        let result = unsafe pclose(pipe)
        errorText = String(decoding: text, as: UTF8.self)
        status = (result >> 8) & 0xff
    }
}
