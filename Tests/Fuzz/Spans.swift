// SPDX-License-Identifier: Apache-2.0
//
// When something was so, in the driver's own time.

/// A moment of a run: the driver counts its actions and its looks at the guest.
typealias Moment = Int

/// From when to when something was so; still so where the end is missing.
struct Span {
    var from: Moment
    var to: Moment?

    /// Whether it may have been so at some moment of `first...last`.
    func overlaps(_ first: Moment, _ last: Moment) -> Bool {
        from <= last && (to ?? .max) >= first
    }
}

/// Several of them.
struct Spans {
    private(set) var all: [Span] = []

    /// From `moment` on it is so, or is not.
    mutating func set(_ on: Bool, at moment: Moment) {
        let isOn = all.last.map { $0.to == nil } ?? false
        if on && !isOn { all.append(Span(from: moment, to: nil)) }
        if !on && isOn { all[all.count - 1].to = moment }
    }

    /// It was so for that moment.
    mutating func mark(_ moment: Moment) {
        all.insert(Span(from: moment, to: moment), at: 0)
    }

    /// Whether it may have been so at some moment of `first...last`.
    func overlap(_ first: Moment, _ last: Moment) -> Bool {
        all.contains { $0.overlaps(first, last) }
    }
}
