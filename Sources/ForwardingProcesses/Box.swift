// SPDX-License-Identifier: Apache-2.0
//
// A shared place for a value that cannot be copied.

/// Keeps a value that cannot be copied where only copyable ones go.
final class Box<Value: ~Copyable & Sendable>: Sendable {
    let value: Value

    init(_ value: consuming Value) {
        self.value = value
    }
}
