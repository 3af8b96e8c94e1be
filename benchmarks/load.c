/* Load for the streaming benchmarks: an echo server, and clients that count. Compiled when the benchmarks run.
 *
 *   load echo PORT                                    WebSocket echo server
 *   load ping PORT PATH CONNECTIONS SIZE WARM SECONDS WebSocket ping-pong: one message under way per connection
 *   load sse PORT PATH UPSTREAM STREAMS SIZE WARM SECONDS
 *                                                     both ends of event streams: sends the next event of a stream when
 *                                                     the one before has come through, so each is relayed by itself
 *   load idle PORT PATH COUNT                         opens COUNT WebSockets and holds them until its input ends
 *
 * ping and sse print "begin" after WARM seconds and "end COUNT" after SECONDS more. All clients send the same key, so the
 * server needs no SHA-1: key and answer are those of RFC 6455 section 1.3.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define CHUNK (1 << 18)
#define EVENTS 256

enum role { LISTENER, ECHO, PING, SOURCE, SINK, HELD };

struct peer {
  enum role role;
  int fd, open;          /* open: the handshake is over */
  int number;            /* of a stream's upstream side */
  char *head;            /* the head as far as it has come */
  size_t head_len;
  unsigned char header[14]; /* of the frame that is coming */
  size_t header_len;
  uint64_t left;         /* payload bytes of that frame to come */
  unsigned char mask[4];
  unsigned mask_at;
  unsigned char *out;    /* what could not be sent yet */
  size_t out_at, out_len, out_size;
};

static int poller;
static enum role accepted_role;
static unsigned char *frame;  /* what a client sends again and again */
static size_t frame_len;
static uint64_t count, opened;
static struct peer *sources[65536];
static int source_count;
static size_t event_size;
static unsigned char input[CHUNK];

static void die(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void watch(struct peer *p, uint32_t events, int operation) {
  struct epoll_event e = {.events = events, .data.ptr = p};
  if (epoll_ctl(poller, operation, p->fd, &e) < 0) die("epoll_ctl");
}

static struct peer *adopt(int fd, enum role role) {
  struct peer *p = calloc(1, sizeof *p);
  int one = 1;
  if (!p) die("calloc");
  p->fd = fd;
  p->role = role;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  watch(p, EPOLLIN, EPOLL_CTL_ADD);
  return p;
}

/* Sends what is waiting, as far as it goes now. */
static void flush(struct peer *p) {
  int waited = p->out_at > 0;
  while (p->out_at < p->out_len) {
    ssize_t sent = send(p->fd, p->out + p->out_at, p->out_len - p->out_at, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) break;
    if (sent < 0 && (p->role == ECHO || p->role == SOURCE)) { /* the other side left: reading will tell */
      p->out_at = p->out_len = 0;
      return;
    }
    if (sent < 0) die("send");
    p->out_at += (size_t)sent;
  }
  if (p->out_at == p->out_len) {
    p->out_at = p->out_len = 0;
    if (waited) watch(p, EPOLLIN, EPOLL_CTL_MOD);
  } else {
    watch(p, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
  }
}

static void put(struct peer *p, const void *data, size_t size) {
  if (p->out_len + size > p->out_size) {
    p->out_size = (p->out_len + size) * 2;
    p->out = realloc(p->out, p->out_size);
    if (!p->out) die("realloc");
  }
  memcpy(p->out + p->out_len, data, size);
  p->out_len += size;
}

static void put_event(struct peer *p) {
  char event[65536];
  int size = snprintf(event, sizeof event, "id: %d\ndata: ", p->number);
  size_t filled = (size_t)size;
  char lengths[16];
  int n = snprintf(lengths, sizeof lengths, "%zx\r\n", event_size);
  while (filled < event_size - 2) event[filled++] = 'x';
  event[filled++] = '\n';
  event[filled++] = '\n';
  put(p, lengths, (size_t)n);
  put(p, event, filled);
  put(p, "\r\n", 2);
  flush(p);
}

/* Takes the bytes of a head; returns how many bytes of data belong to it, or -1 while it is incomplete. */
static ssize_t take_head(struct peer *p, const unsigned char *data, size_t size) {
  size_t before = p->head_len;
  p->head = realloc(p->head, before + size + 1);
  memcpy(p->head + before, data, size);
  p->head_len += size;
  p->head[p->head_len] = 0;
  char *end = strstr(p->head, "\r\n\r\n");
  if (!end) return -1;
  return (ssize_t)((size_t)(end + 4 - p->head) - before);
}

static void head_complete(struct peer *p) {
  static const char *upgraded =
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n";
  static const char *streaming =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
  p->open = 1;
  if (p->role == ECHO) {
    if (!strstr(p->head, KEY)) {
      fprintf(stderr, "the proxy sends a key of its own\n");
      exit(1);
    }
    put(p, upgraded, strlen(upgraded));
    flush(p);
  } else if (p->role == SOURCE) {
    put(p, streaming, strlen(streaming));
    p->number = source_count;
    sources[source_count++] = p;
    put_event(p);
  } else {
    const char *wanted = p->role == SINK ? "HTTP/1.1 200" : "HTTP/1.1 101";
    if (strncmp(p->head, wanted, 12)) {
      fprintf(stderr, "refused: %s\n", p->head);
      exit(1);
    }
    opened++;
    if (p->role == PING) {
      put(p, frame, frame_len);
      flush(p);
    }
  }
  free(p->head);
  p->head = NULL;
  p->head_len = 0;
}

/* A frame's header is complete: its length, and for the server its mask and the header of the echo. */
static void frame_begins(struct peer *p) {
  unsigned char *h = p->header;
  unsigned length = h[1] & 127u, at = 2;
  p->left = length;
  if (length == 126) {
    p->left = (uint64_t)h[2] << 8 | h[3];
    at = 4;
  } else if (length == 127) {
    p->left = 0;
    for (at = 2; at < 10; at++) p->left = p->left << 8 | h[at];
  }
  if (p->role == ECHO) {
    unsigned char answer[10];
    memcpy(answer, h, at);
    answer[1] &= 127;
    memcpy(p->mask, h + at, 4);
    p->mask_at = 0;
    put(p, answer, at);
  }
  p->header_len = 0;
}

static size_t header_size(const struct peer *p) {
  if (p->header_len < 2) return 2;
  unsigned length = p->header[1] & 127u;
  return 2u + (length == 126 ? 2u : length == 127 ? 8u : 0u) + (p->header[1] & 128u ? 4u : 0u);
}

static void frame_payload(struct peer *p, unsigned char *data, size_t size) {
  p->left -= size;
  if (p->role == ECHO) {
    size_t i = 0;
    while (i < size && p->mask_at & 3) data[i++] ^= p->mask[p->mask_at++ & 3];
    uint32_t mask;
    memcpy(&mask, p->mask, 4);
    for (; i + 4 <= size; i += 4) {
      uint32_t word;
      memcpy(&word, data + i, 4);
      word ^= mask;
      memcpy(data + i, &word, 4);
    }
    while (i < size) data[i++] ^= p->mask[p->mask_at++ & 3];
    put(p, data, size);
  }
}

static void frame_ends(struct peer *p) {
  if (p->role != PING) return;
  count++;
  put(p, frame, frame_len);
}

static void take_frames(struct peer *p, unsigned char *data, size_t size) {
  while (size) {
    if (p->left) {
      size_t n = p->left < size ? (size_t)p->left : size;
      frame_payload(p, data, n);
      data += n;
      size -= n;
      if (!p->left) frame_ends(p);
      continue;
    }
    p->header[p->header_len++] = *data++;
    size--;
    if (p->header_len >= 2 && p->header_len == header_size(p)) {
      frame_begins(p);
      if (!p->left) frame_ends(p);
    }
  }
  flush(p);
}

/* Finds "id: N" of each event, whatever the framing around it, and sends that stream's next event. */
static void take_events(struct peer *p, const unsigned char *data, size_t size) {
  for (size_t i = 0; i < size; i++) {
    char c = (char)data[i];
    /* header[] collects the digits after "id: " */
    if (p->left < 4) {
      p->left = c == "id: "[p->left] ? p->left + 1 : (uint64_t)(c == 'i');
    } else if (c >= '0' && c <= '9' && p->header_len < 8) {
      p->header[p->header_len++] = (unsigned char)c;
    } else {
      p->header[p->header_len] = 0;
      int number = atoi((char *)p->header);
      p->left = p->header_len = 0;
      count++;
      if (number < source_count) put_event(sources[number]);
    }
  }
}

static void drop(struct peer *p) {
  if (p->role == PING || p->role == SINK || p->role == HELD) {
    fprintf(stderr, "the proxy closed a stream\n");
    exit(1);
  }
  close(p->fd);
  free(p->out);
  free(p->head);
  free(p);
}

static void readable(struct peer *p) {
  if (p->role == LISTENER) {
    int fd;
    while ((fd = accept4(p->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) adopt(fd, accepted_role);
    return;
  }
  ssize_t got = recv(p->fd, input, sizeof input, 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) {
    drop(p);
    return;
  }
  unsigned char *data = input;
  size_t size = (size_t)got;
  if (!p->open) {
    ssize_t used = take_head(p, data, size);
    if (used < 0) return;
    head_complete(p);
    data += used;
    size -= (size_t)used;
  }
  if (!size) return;
  if (p->role == SINK)
    take_events(p, data, size);
  else if (p->role != SOURCE)
    take_frames(p, data, size);
}

static void turn(int milliseconds) {
  struct epoll_event events[EVENTS];
  int n = epoll_wait(poller, events, EVENTS, milliseconds);
  for (int i = 0; i < n; i++) {
    struct peer *p = events[i].data.ptr;
    if (events[i].events & EPOLLOUT) flush(p);
    if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(p);
  }
}

static void listen_at(int port, enum role role) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0) die("bind");
  if (listen(fd, 4096) < 0) die("listen");
  accepted_role = role;
  adopt(fd, LISTENER);
}

static void open_stream(int port, const char *path, enum role role) {
  char request[1024];
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) die("socket");
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0) die("connect");
  int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n", path, port,
                      role == SINK ? "Accept: text/event-stream\r\n"
                                   : "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " KEY
                                     "\r\nSec-WebSocket-Version: 13\r\n");
  struct peer *p = adopt(fd, role);
  put(p, request, (size_t)size);
  flush(p);
}

static void open_streams(int port, const char *path, enum role role, uint64_t wanted) {
  double until = now() + 60;
  for (uint64_t asked = 0; asked < wanted;) {
    /* at most some handshakes at once: a full accept queue would cost seconds of retransmission */
    while (asked < wanted && asked - opened < 64) open_stream(port, path, role), asked++;
    turn(100);
    if (now() > until) {
      fprintf(stderr, "only %llu streams opened\n", (unsigned long long)opened);
      exit(1);
    }
  }
  while (opened < wanted && now() < until) turn(100);
}

static void measure(double warm, double seconds) {
  double begin = now() + warm;
  while (now() < begin) turn(50);
  count = 0;
  printf("begin\n");
  double end = now() + seconds;
  while (now() < end) turn(50);
  printf("end %llu\n", (unsigned long long)count);
}

static void make_frame(size_t size) {
  static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
  size_t at;
  frame = malloc(size + 14);
  frame[0] = 0x81;
  if (size < 126) {
    frame[1] = (unsigned char)(0x80 | size);
    at = 2;
  } else if (size < 65536) {
    frame[1] = 0x80 | 126;
    frame[2] = (unsigned char)(size >> 8);
    frame[3] = (unsigned char)size;
    at = 4;
  } else {
    frame[1] = 0x80 | 127;
    for (int i = 0; i < 8; i++) frame[2 + i] = (unsigned char)((uint64_t)size >> (56 - 8 * i));
    at = 10;
  }
  memcpy(frame + at, mask, 4);
  at += 4;
  for (size_t i = 0; i < size; i++) frame[at + i] = (unsigned char)('a' + i % 26) ^ mask[i & 3];
  frame_len = at + size;
}

int main(int argc, char **argv) {
  struct rlimit limit;
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, NULL, _IOLBF, 0);
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  poller = epoll_create1(0);
  if (argc == 3 && !strcmp(argv[1], "echo")) {
    listen_at(atoi(argv[2]), ECHO);
    for (;;) turn(-1);
  } else if (argc == 8 && !strcmp(argv[1], "ping")) {
    make_frame((size_t)atol(argv[5]));
    open_streams(atoi(argv[2]), argv[3], PING, (uint64_t)atol(argv[4]));
    measure(atof(argv[6]), atof(argv[7]));
  } else if (argc == 9 && !strcmp(argv[1], "sse")) {
    event_size = (size_t)atol(argv[6]);
    listen_at(atoi(argv[4]), SOURCE);
    open_streams(atoi(argv[2]), argv[3], SINK, (uint64_t)atol(argv[5]));
    measure(atof(argv[7]), atof(argv[8]));
  } else if (argc == 5 && !strcmp(argv[1], "idle")) {
    open_streams(atoi(argv[2]), argv[3], HELD, (uint64_t)atol(argv[4]));
    printf("open %llu\n", (unsigned long long)opened);
    /* held until our input ends */
    fcntl(0, F_SETFL, O_NONBLOCK);
    for (char c; read(0, &c, 1) != 0;) turn(100);
  } else {
    fprintf(stderr, "usage: see the head of load.c\n");
    return 2;
  }
  return 0;
}
