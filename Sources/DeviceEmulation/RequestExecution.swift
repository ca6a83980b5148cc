// SPDX-License-Identifier: Apache-2.0
//
// One request, carried out by a device: every check of what came from outside is here.

import MMIOForwarding

extension MMIODevice where Self: ~Copyable {
    /// Carries out a request, in parts if need be, and counts what happened.
    ///
    /// - Parameters:
    ///   - request: anything at all.
    ///   - counters: where to count.
    /// - Returns: a load's value and what became of the request.
    mutating func execute(
        _ request: ForwardedRequest, counting counters: inout ServerCounters
    ) -> (value: UInt64, outcome: ServedRequest.Outcome) {
        guard request.isWellFormed else {
            counters.malformed &+= 1
            return (.max, .malformed)
        }
        if request.isRedelivered { counters.redelivered &+= 1 }
        switch request.kind {
        case .load:
            counters.loads &+= 1
            return executeLoad(request, counting: &counters)
        case .store:
            counters.stores &+= 1
            return (0, executeStore(request, counting: &counters))
        }
    }

    private mutating func executeLoad(
        _ request: ForwardedRequest, counting counters: inout ServerCounters
    ) -> (value: UInt64, outcome: ServedRequest.Outcome) {
        var split = AccessSplit(offset: request.offset, length: request.length, widest: widestAccess)
        var value: UInt64 = 0
        var outcome = ServedRequest.Outcome.done
        var parts = 0
        while let part = split.next() {
            parts += 1
            let access = Access(part, of: request)
            let loaded: UInt64
            do throws(AccessFault) {
                loaded = try answer(access)
            } catch {
                counters.count(error)
                if outcome == .done { outcome = .refused(error) }
                loaded = .max
            }
            value |= (loaded & part.width.mask) << part.shift
        }
        if parts > 1 { counters.splits &+= 1 }
        return (value, outcome)
    }

    private mutating func answer(_ access: Access) throws(AccessFault) -> UInt64 {
        if let value = shadow?.value(of: access) { return value }
        return try load(access)
    }

    private mutating func executeStore(
        _ request: ForwardedRequest, counting counters: inout ServerCounters
    ) -> ServedRequest.Outcome {
        var split = AccessSplit(offset: request.offset, length: request.length, widest: widestAccess)
        var outcome = ServedRequest.Outcome.done
        var parts = 0
        while let part = split.next() {
            parts += 1
            do throws(AccessFault) {
                try store((request.data >> part.shift) & part.width.mask, Access(part, of: request))
            } catch {
                counters.count(error)
                if outcome == .done { outcome = .refused(error) }
            }
        }
        if parts > 1 { counters.splits &+= 1 }
        return outcome
    }
}

extension Access {
    init(_ part: AccessSplit.Part, of request: ForwardedRequest) {
        self.init(
            part.offset, part.width, rangeID: request.rangeID, vcpu: request.vcpu,
            isRedelivered: request.isRedelivered)
    }
}

extension ForwardedRequest {
    /// Whether a guest can have made it: a known kind, 1 to 8 bytes, and an end that 64 bits hold.
    fileprivate var isWellFormed: Bool {
        hasKnownKind && (1...8).contains(length) && !offset.addingReportingOverflow(UInt64(length)).overflow
    }
}
