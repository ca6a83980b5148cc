// SPDX-License-Identifier: Apache-2.0
//
// What the funnel makes of a result and errno.

import Glibc
import LinuxSystem
import SystemPackage
import Testing

@Suite("System call")
struct SystemCallTests {
    @Test("a result other than -1 is returned as it is", arguments: [0, 1, -2, Int.max, Int.min])
    func result(value: Int) throws {
        #expect(try systemCall(onInterrupt: .fail) { value } == value)
    }

    @Test("-1 throws errno")
    func failure() {
        let error = errno { () throws(Errno) in
            try systemCall(onInterrupt: .retry) { () -> CInt in
                Glibc.errno = EXDEV
                return -1
            }
        }
        #expect(error == .improperLink)
    }

    @Test("EINTR is tried again under retry")
    func retried() throws {
        var calls = 0
        let result = try systemCall(onInterrupt: .retry) { () -> CInt in
            calls += 1
            Glibc.errno = EINTR
            return calls < 3 ? -1 : 7
        }
        #expect(result == 7)
        #expect(calls == 3)
    }

    @Test("EINTR ends the call under fail")
    func interrupted() {
        var calls = 0
        let error = errno { () throws(Errno) in
            try systemCall(onInterrupt: .fail) { () -> CInt in
                calls += 1
                Glibc.errno = EINTR
                return -1
            }
        }
        #expect(error == .interrupted)
        #expect(calls == 1)
    }
}
