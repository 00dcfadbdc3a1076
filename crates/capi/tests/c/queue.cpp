// A queue of C++, with the header's functions behind classes and lambdas as callbacks: `queue FOLDER`.
// Threads add items, the heap is opened anew, and every item is there, once, in the order of its thread.
#include "check.h"

#include <array>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr unsigned kThreads = 3;
constexpr unsigned kItems = 200;

struct Item {
  pma_slot next;
  std::uint32_t thread, number;
};

struct Root {
  pma_slot first;
  pma_slot length; // a cell
};

class Heap {
public:
  template <class Open> Heap(Open open, const std::string &path) {
    pma_options options;
    pma_options_init(&options, sizeof options);
    options.layout = "queue-1";
    OK(open(path.c_str(), &options, &heap_));
    void *root = nullptr;
    OK(pma_root(heap_, "queue", sizeof(Root), 1, &root));
    root_ = static_cast<Root *>(root);
  }
  Heap(const Heap &) = delete;
  Heap &operator=(const Heap &) = delete;
  ~Heap() { OK(pma_close(heap_)); }

  pma_heap *operator*() const { return heap_; }
  Root &root() const { return *root_; }

  template <class T> T *get(const pma_slot &slot) const { return static_cast<T *>(pma_get(heap_, &slot)); }

  std::uint64_t length() const { return root_->length.raw & PMA_CELL_MAX; }

private:
  pma_heap *heap_ = nullptr;
  Root *root_ = nullptr;
};

class Pin {
public:
  explicit Pin(const Heap &heap) : heap_(heap) { pma_pin(*heap_); }
  Pin(const Pin &) = delete;
  Pin &operator=(const Pin &) = delete;
  ~Pin() { pma_unpin(*heap_); }

private:
  const Heap &heap_;
};

// The slot at the end of the queue.
pma_slot *end(const Heap &heap) {
  pma_slot *slot = &heap.root().first;
  while (auto *item = heap.get<Item>(*slot))
    slot = &item->next;
  return slot;
}

void push(const Heap &heap, std::mutex &order, std::uint32_t thread, std::uint32_t number) {
  pma_off block = 0;
  OK(pma_reserve(*heap, sizeof(Item), alignof(Item), &block));
  auto *item = static_cast<Item *>(pma_ptr(*heap, block));
  std::memset(item, 0, sizeof *item);
  item->thread = thread;
  item->number = number;
  std::lock_guard<std::mutex> one(order);
  std::array<pma_action, 2> actions{};
  actions[0].kind = PMA_A_ALLOC;
  actions[0].slot = end(heap);
  actions[0].block = block;
  actions[1].kind = PMA_A_SET;
  actions[1].slot = &heap.root().length;
  actions[1].value = heap.length() + 1;
  OK(pma_publish(*heap, actions.data(), actions.size()));
}

// Takes the first item.
Item pop(const Heap &heap) {
  Pin pin(heap);
  auto *item = heap.get<Item>(heap.root().first);
  CHECK(item != nullptr);
  Item copy = *item;
  std::vector<pma_action> actions;
  actions.push_back({PMA_A_FREE, 0, &heap.root().first, nullptr, 0, 0});
  if (heap.get<Item>(item->next) != nullptr)
    actions.push_back({PMA_A_MOVE, 0, &heap.root().first, &item->next, 0, 0});
  actions.push_back({PMA_A_SET, 0, &heap.root().length, nullptr, 0, heap.length() - 1});
  OK(pma_publish(*heap, actions.data(), actions.size()));
  // Freed, and still there: this thread has pinned the heap.
  CHECK(item->thread == copy.thread && item->number == copy.number);
  return copy;
}

void fill(const Heap &heap) {
  std::mutex order;
  std::vector<std::thread> threads;
  for (std::uint32_t thread = 0; thread < kThreads; thread++)
    threads.emplace_back([&, thread] {
      for (std::uint32_t number = 0; number < kItems; number++)
        push(heap, order, thread, number);
    });
  for (auto &thread : threads)
    thread.join();
}

void drain(const Heap &heap) {
  std::array<std::uint32_t, kThreads> next{};
  CHECK(heap.length() == kThreads * kItems);
  while (heap.length() > 0) {
    Item item = pop(heap);
    CHECK(item.thread < kThreads && item.number == next[item.thread]++);
  }
  for (auto number : next)
    CHECK(number == kItems);
}

// A callback may be a lambda that captures nothing, with its state as the argument.
void callbacks(const Heap &heap) {
  std::string text = "written by a lambda";
  auto write = [](void *block, void *arg) {
    auto *source = static_cast<std::string *>(arg);
    std::memcpy(block, source->c_str(), source->size() + 1);
  };
  pma_slot &slot = heap.root().first;
  OK(pma_alloc_init(*heap, &slot, text.size() + 1, 0, write, &text));
  CHECK(text == heap.get<char>(slot));
  std::vector<pma_off> blocks;
  auto see = [](pma_off block, std::size_t, std::uint8_t, void *arg) {
    static_cast<std::vector<pma_off> *>(arg)->push_back(block);
    return 0;
  };
  OK(pma_iter(*heap, see, &blocks));
  CHECK(blocks.size() == 2); // the root and the text
  OK(pma_free_from(*heap, &slot));
  std::uint64_t problems = 1;
  auto show = [](const char *problem, void *) { std::fprintf(stderr, "%s\n", problem); };
  OK(pma_check(*heap, show, nullptr, &problems));
  CHECK(problems == 0);
}

// Two threads publish one reserved block: it goes to one slot, and the other thread is told.
void race(const Heap &heap) {
  void *root = nullptr;
  OK(pma_root(*heap, "race", 2 * sizeof(pma_slot), 0, &root));
  auto *slots = static_cast<pma_slot *>(root);
  for (int round = 0; round < 200; round++) {
    pma_action action{PMA_A_ALLOC, 0, &slots[0], nullptr, 0, 0};
    OK(pma_reserve(*heap, 40, 0, &action.block));
    int other = -1;
    std::thread rival([&, action]() mutable {
      action.slot = &slots[1];
      other = pma_publish(*heap, &action, 1);
    });
    int mine = pma_publish(*heap, &action, 1);
    rival.join();
    CHECK((mine == 0 && other == PMA_E_NOT_LIVE) || (mine == PMA_E_NOT_LIVE && other == 0));
    EXPECT(mine, pma_free_from(*heap, &slots[0]) == 0 ? 0 : PMA_E_NOT_LIVE);
    EXPECT(other, pma_free_from(*heap, &slots[1]) == 0 ? 0 : PMA_E_NOT_LIVE);
  }
}

} // namespace

int main(int argc, char **argv) {
  CHECK(argc == 2);
  std::string path = std::string(argv[1]) + "/heap";
  {
    Heap heap(pma_create, path);
    fill(heap);
  }
  Heap heap(pma_open, path);
  drain(heap);
  callbacks(heap);
  race(heap);
  return 0;
}
