package examples

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/freshet-ml/freshet/ps"
)

// Times of the simulation, in milliseconds.
const (
	minute int64 = 60_000
	hour         = 60 * minute
	day          = 24 * hour

	start        = 1_767_571_200_000 // Monday, 2026-01-05 00:00 UTC
	eventsPerDay = 50_000
)

// Limits and defaults of a shop.
const (
	eventsDefault   = 1_000_000
	usersDefault    = 10_000
	productsDefault = 2_400
	sizeMax         = 10_000_000 // users, products: up to 16 and 120 bytes of memory each
)

// traffic is how busy each hour of the day is, in per cent of the mean.
var traffic = [24]int{
	45, 30, 22, 18, 18, 24, 42, 70, 95, 108, 112, 118, 128, 120, 112, 110, 115, 128, 150, 180, 200, 195, 155, 105,
}

// shopHeader names the columns of a shop's events; see Shop.Write.
const shopHeader = "ts,uid,age,tier,style,device,surface,query,position,product,category,brand,tags,price,discount,days_listed,clicked,click_probability\n"

// Shop describes a simulated shop; the package comment says how its users behave.
// The zero value is a shop with the defaults and seed 0.
type Shop struct {
	// Events is how many events to write; 0 means 1,000,000.
	Events int64
	// Seed decides everything that is drawn.
	Seed uint64
	// Users is how many there are; 0 means 10,000. At most 10,000,000.
	Users int
	// Products is how many are listed at a time, rounded up to as many for each of
	// the 24 categories; 0 means 2,400. At most 10,000,000.
	Products int
}

// Valid returns an error that wraps ps.ErrInvalid if a setting is out of range.
func (s Shop) Valid() error {
	_, err := s.validate()
	return err
}

func (s Shop) validate() (Shop, error) {
	if s.Events < 0 || s.Users < 0 || s.Products < 0 || s.Users > sizeMax || s.Products > sizeMax {
		return s, fmt.Errorf("shop of %d events, %d users and %d products: want none below 0 and at most %d users and products: %w",
			s.Events, s.Users, s.Products, sizeMax, ps.ErrInvalid)
	}
	if s.Events == 0 {
		s.Events = eventsDefault
	}
	if s.Users == 0 {
		s.Users = usersDefault
	}
	if s.Products == 0 {
		s.Products = productsDefault
	}
	return s, nil
}

// Write writes the shop's events as CSV with a header, in the order of their time,
// and returns what the best possible model would reach on them. The columns are
//
//	ts           when the page was shown, in milliseconds since 1970
//	uid          the user: an identifier
//	age, tier, style  of the user: years; none, bronze, silver or gold; s0 to s23
//	device       phone, desktop or tablet
//	surface      what the page is: search, home or mail
//	query        what was searched for, as words; empty elsewhere
//	position     on the page, from 1
//	product, category, brand, tags (separated by |), price, discount (per cent),
//	days_listed  of the product shown
//	clicked      1 or 0: the label
//	click_probability  the true one; no feature may read it
//
// It calls progress, if not nil, with the number of events written so far, from
// the calling goroutine, now and then and at the end; progress should not block.
// Memory does not grow with the number of events, and nothing is allocated per event.
//
// Settings out of range are ps.ErrInvalid; else an error is ctx's or w's.
func (s Shop) Write(ctx context.Context, w io.Writer, progress func(events int64)) (Best, error) {
	s, err := s.validate()
	if err != nil {
		return Best{}, err
	}
	const full = 1 << 18 // large enough that a write's own cost vanishes
	buf := append(make([]byte, 0, full+1<<14), shopHeader...)
	sim, best := newSimulation(s), newTally()
	var g page
	var written int64
	for written < s.Events {
		sim.nextPage(&g)
		for i := 0; i < g.length && written < s.Events; i++ {
			v := sim.nextView(&g, i)
			best.add(v.probability, v.clicked)
			buf = v.append(append(buf, g.prefix...))
			written++
		}
		if len(buf) < full && written < s.Events {
			continue
		}
		if err := ctx.Err(); err != nil {
			return Best{}, fmt.Errorf("write the shop's events, %d of %d written: %w", written, s.Events, err)
		}
		if _, err := w.Write(buf); err != nil {
			return Best{}, fmt.Errorf("write the shop's events up to %d of %d: %w", written, s.Events, err)
		}
		buf = buf[:0]
		if progress != nil {
			progress(written)
		}
	}
	return best.result(), nil
}

// simulation is a shop in motion. It has one owner.
type simulation struct {
	seed        uint64
	events      random
	now         int64
	users       popularity
	categories  popularity
	ranks       popularity // of the products of a category
	perCategory int
	products    []product // by place: category · perCategory + rank
	clicks      *clicks
}

func newSimulation(s Shop) *simulation {
	perCategory := (s.Products + nCategories - 1) / nCategories
	sim := &simulation{
		seed:        s.Seed,
		now:         start,
		users:       zipf(s.Users, 0.7),
		categories:  zipf(nCategories, 0.6),
		ranks:       zipf(perCategory, 0.9),
		perCategory: perCategory,
		products:    make([]product, perCategory*nCategories),
	}
	sim.events = sim.random(ofEvents, 0, 0)
	sim.clicks = newClicks(sim)
	return sim
}

// random returns the random numbers of one thing: they are the same whenever it
// is looked at, which is why a shop needs no memory of its past.
func (s *simulation) random(purpose, a, b uint64) random {
	return random(ps.Mix(ps.Mix(ps.Mix(s.seed+purpose<<56)+a) + b))
}

// page is what one user sees at one time.
type page struct {
	user     user
	device   int
	surface  int
	category int // searched for, or shown by preference
	tag      int // searched for, or -1
	hour     int
	length   int
	prefix   []byte // the columns that all events of the page share
}

// nextPage moves the time on and lets a user open a page.
func (s *simulation) nextPage(g *page) {
	const (
		perPage = (pageLengthMin + pageLengthMax) / 2
		gap     = int(day) / eventsPerDay * perPage
	)
	r := &s.events
	s.now += 1 + int64(r.below(2*gap*100/traffic[s.hour()]))
	g.hour = s.hour()

	g.user = s.userAt(s.users.draw(r))
	g.device = g.user.device
	if r.below(5) == 0 {
		g.device = r.below(len(deviceNames))
	}
	g.surface = mail
	switch share := r.below(100); {
	case share < 40:
		g.surface = search
	case share < 85:
		g.surface = home
	}
	g.category = s.category(&g.user, 60)
	g.tag = -1
	if g.surface == search && r.below(2) == 0 {
		g.tag = r.below(len(tagNames))
	}
	g.length = pageLengthMin + r.below(pageLengthMax-pageLengthMin+1)
	g.prefix = g.appendShared(g.prefix[:0], s.now)
}

func (s *simulation) hour() int { return int((s.now - start) % day / hour) }

// category draws one that the user likes with the given probability in per cent,
// else one by popularity.
func (s *simulation) category(u *user, liked int) int {
	if s.events.below(100) >= liked {
		return s.categories.draw(&s.events)
	}
	if s.events.below(3) == 0 {
		return u.favourites[s.events.below(nFavourites)]
	}
	return u.fashions[s.events.below(nFashions)]
}

func (g *page) appendShared(b []byte, now int64) []byte {
	b = strconv.AppendInt(b, now, 10)
	b = append(b, ",u"...)
	b = strconv.AppendInt(b, int64(g.user.number), 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, int64(g.user.age), 10)
	b = append(b, ',')
	b = append(b, tierNames[g.user.tier]...)
	b = append(b, ",s"...)
	b = strconv.AppendInt(b, int64(g.user.style), 10)
	b = append(b, ',')
	b = append(b, deviceNames[g.device]...)
	b = append(b, ',')
	b = append(b, surfaceNames[g.surface]...)
	b = append(b, ',')
	if g.surface == search {
		if g.tag >= 0 {
			b = append(b, tagNames[g.tag]...)
			b = append(b, ' ')
		}
		b = append(b, categoryNames[g.category]...)
	}
	return append(b, ',')
}

// view is one event: a product at a position of a page.
type view struct {
	product     *product
	position    int // from 0
	price       int // paid, after the discount: log2, in thousandths
	cents       int
	percent     int // the discount
	daysListed  int64
	probability int // of a click, in millionths
	clicked     bool
}

// nextView shows the next product of the page and lets the user click or not.
func (s *simulation) nextView(g *page, position int) view {
	category := g.category
	switch g.surface {
	case search:
		if s.events.below(100) >= 85 {
			category = s.categories.draw(&s.events)
		}
	case home:
		category = s.category(&g.user, 45)
	case mail:
		category = s.category(&g.user, 15)
	}
	p := s.at(category*s.perCategory + s.ranks.draw(&s.events))
	v := view{product: p, position: position, price: p.price, cents: p.cents, daysListed: (s.now - p.listed) / day}
	if onSale(category, s.now) {
		d := discounts[p.reduced]
		v.percent, v.price, v.cents = d.percent, p.price+d.octaves, p.cents*(100-d.percent)/100
	}
	v.probability = s.clicks.probability(g, &v, s.now)
	v.clicked = s.events.below(million) < v.probability
	return v
}

// append appends the columns after the page's, and the end of the line.
func (v *view) append(b []byte) []byte {
	p := v.product
	b = strconv.AppendInt(b, int64(v.position+1), 10)
	b = append(b, ",p"...)
	b = strconv.AppendUint(b, p.id, 10)
	b = append(b, ',')
	b = append(b, categoryNames[p.category]...)
	b = append(b, ",b"...)
	b = strconv.AppendInt(b, int64(p.brand), 10)
	b = append(b, ',')
	b = append(b, tagNames[p.tags[0]]...)
	b = append(b, '|')
	b = append(b, tagNames[p.tags[1]]...)
	b = append(b, ',')
	b = appendDecimal(b, v.cents, 100)
	b = append(b, ',')
	b = strconv.AppendInt(b, int64(v.percent), 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, v.daysListed, 10)
	if v.clicked {
		b = append(b, ",1,"...)
	} else {
		b = append(b, ",0,"...)
	}
	b = appendDecimal(b, v.probability, million)
	return append(b, '\n')
}

// appendDecimal appends x/unit with as many decimals as unit, a power of ten, has
// zeros.
func appendDecimal(b []byte, x, unit int) []byte {
	b = strconv.AppendInt(b, int64(x/unit), 10)
	at := len(b)
	b = strconv.AppendInt(b, int64(unit+x%unit), 10) // its first digit, 1, keeps the zeros
	b[at] = '.'
	return b
}
