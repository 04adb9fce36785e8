#include "cenote/ground/foreign_exception.hpp"

#include "cenote/ground/error.hpp"

namespace cenote::inline v1 {

foreign_exception::~foreign_exception() = default;

constinit thread_local interrupt_scope* interrupt_scope::open_scope_ = nullptr;

bool interrupt_scope::carry(std::exception_ptr interrupt) noexcept {
  if (open_scope_ == nullptr || open_scope_->kept_ != nullptr) return false;
  open_scope_->kept_ = std::move(interrupt);
  return true;
}

std::exception_ptr interrupt_scope::take() noexcept {
  return open_scope_ == nullptr ? nullptr : std::exchange(open_scope_->kept_, nullptr);
}

void interrupt_scope::report_kept() const noexcept {
  try {
    std::rethrow_exception(kept_);
  } catch (const foreign_exception& interrupt) {
    interrupt.report();
  } catch (const std::exception& error) {
    report_once(error.what());
  } catch (...) {
    report_once("a free was interrupted");
  }
}

}  // namespace cenote::inline v1
