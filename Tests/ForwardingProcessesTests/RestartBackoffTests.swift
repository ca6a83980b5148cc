// SPDX-License-Identifier: Apache-2.0
//
// How soon an emulation process that died is replaced.

import Testing

@testable import ForwardingProcesses

@Suite("Restart backoff") struct RestartBackoffTests {
    @Test("A process that was of use, or lived long, is replaced at once")
    func useful() {
        var backoff = RestartBackoff()
        for _ in 0..<100 {
            #expect(backoff.delay(served: true, lifetime: .zero) == .zero)
            #expect(backoff.delay(served: false, lifetime: .seconds(10)) == .zero)
        }
    }

    @Test("Useless ones are replaced ever later, and at last not at all")
    func useless() {
        var backoff = RestartBackoff()
        let delays = (0..<RestartBackoff.limit).map { _ in backoff.delay(served: false, lifetime: .seconds(1)) }
        #expect(delays.dropLast() == [20, 40, 80, 160, 320, 640, 1280].map { .milliseconds($0) })
        #expect(delays.last == .some(nil))
    }

    @Test("One that is of use makes up for those before")
    func forgiven() {
        var backoff = RestartBackoff()
        for _ in 0..<100 {
            for _ in 0..<RestartBackoff.limit - 1 {
                #expect(backoff.delay(served: false, lifetime: .zero) != nil)
            }
            #expect(backoff.delay(served: true, lifetime: .zero) == .zero)
        }
    }
}
