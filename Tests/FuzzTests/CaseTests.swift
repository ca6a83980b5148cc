// SPDX-License-Identifier: Apache-2.0
//
// Seeds and what they give, and the search for the shortest run that fails.

import Fuzz
import Testing

@Suite("Fuzzing cases") struct CaseTests {
    @Test("A seed gives the same operations each time, another one others")
    func reproducible() {
        let operations = { (seed: UInt64) in FuzzCase(seed: seed, length: 200).operations.map(\.operation) }
        #expect(operations(5) == operations(5))
        #expect(operations(5) != operations(6))
        #expect(operations(5).count == 200)
    }

    @Test("Every kind of operation comes")
    func kinds() {
        let kinds = FuzzCase(seed: 1, length: 20_000).operations.map(\.operation.kind)
        #expect(Set(kinds) == Set(FuzzOperation.Kind.allCases))
    }

    @Test("A shorter run has the same operations at the same positions")
    func keeping() {
        let whole = FuzzCase(seed: 3, length: 50)
        let shorter = whole.keeping([4, 17, 40, 99])
        #expect(shorter.operations.map(\.position) == [4, 17, 40])
        #expect(shorter.operations.allSatisfy { $0.operation == whole.operations[$0.position].operation })
    }

    @Test("Shortening finds what a failure needs", arguments: [[7], [3, 60], [0, 1, 99], [10, 50, 51, 52]])
    func shrinking(needed: [Int]) {
        var tries = 0
        let always = { true }
        let found = shrink(Array(0..<100), while: always) { positions in
            tries += 1
            return Set(needed).isSubset(of: positions)
        }
        #expect(found == needed)
        #expect(tries < 400)
    }

    @Test("Shortening stops when its time is over")
    func time() {
        var left = 3
        let mayGoOn = { () -> Bool in
            left -= 1
            return left > 0
        }
        let found = shrink(Array(0..<100), while: mayGoOn) { $0.contains(0) }
        #expect(found.contains(0))
        #expect(found.count > 1)
    }
}
