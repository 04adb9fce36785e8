// An exception of another language: a program's function raises it, C++ carries it, and it is raised again as it was.
//
//   1. A function of the program's that may fail throws a class derived from foreign_exception, and from what C++ takes
//      it for. It passes every resource and adaptor as any C++ exception does. Whoever has called the core from that
//      language catches it and calls raise_again().
//   2. A function that frees memory may not throw. What must not be lost there, an interrupt (Ctrl-C, the request to
//      end the program), it gives to interrupt_scope::carry. The scope that is open on this thread keeps it until its
//      maker ends it. Where none is open, as in a destructor, the function reports it in its own way.
//   3. A function of the program's runs under a closed_interrupt_scope: what is freed inside of it is its own affair.
//
// Threads: a scope is its thread's own. Cost: a thread-local pointer, written twice a scope.
#pragma once

#include <exception>
#include <utility>

#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class foreign_exception {
 public:
  virtual ~foreign_exception();

  /// Raises it in its own language. Whoever calls holds what that takes, such as an interpreter's lock.
  virtual void raise_again() const = 0;

  /// For a caller that would make another exception of it on its way: raises an interrupt in its own language as soon
  /// as this thread runs that again. Nothing happens for what is no interrupt.
  virtual void raise_later() const noexcept = 0;

  /// Reports it, as nobody is there to whom it could be raised.
  virtual void report() const noexcept = 0;
};

/// From its construction to end(), an interrupt in a free on this thread is kept for whoever made the scope. Scopes
/// nest.
class interrupt_scope {
 public:
  interrupt_scope() noexcept : outer_(std::exchange(open_scope_, this)) {}
  /// Ends it; reports what was kept and not thrown.
  ~interrupt_scope() {
    close();
    if (kept_ != nullptr) [[unlikely]]
      report_kept();
  }
  interrupt_scope(const interrupt_scope&) = delete;
  interrupt_scope& operator=(const interrupt_scope&) = delete;

  bool has_interrupt() const noexcept { return kept_ != nullptr; }

  /// Throws what was kept, if anything was.
  void end() {
    close();
    if (kept_ != nullptr) [[unlikely]]
      std::rethrow_exception(std::exchange(kept_, nullptr));
  }

  /// Hands `interrupt` to the scope that is open on this thread. False where none is, or where it has one already.
  static bool carry(std::exception_ptr interrupt) noexcept;

  /// For who turns a C++ exception into another language's: an interrupt that the open scope has matters more.
  static std::exception_ptr take() noexcept;

 private:
  friend class closed_interrupt_scope;

  // Written around allocations and frees: initial-exec spares a call into the loader.
  [[gnu::tls_model("initial-exec")]] static constinit thread_local interrupt_scope* open_scope_;

  void close() noexcept {
    if (std::exchange(is_open_, false)) open_scope_ = outer_;
  }
  void report_kept() const noexcept;

  interrupt_scope* outer_;
  bool is_open_ = true;
  std::exception_ptr kept_;
};

/// While it lives, no interrupt_scope of this thread is open but those that are made meanwhile.
class closed_interrupt_scope {
 public:
  closed_interrupt_scope() noexcept : outer_(std::exchange(interrupt_scope::open_scope_, nullptr)) {}
  ~closed_interrupt_scope() { interrupt_scope::open_scope_ = outer_; }
  closed_interrupt_scope(const closed_interrupt_scope&) = delete;
  closed_interrupt_scope& operator=(const closed_interrupt_scope&) = delete;

 private:
  interrupt_scope* outer_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
