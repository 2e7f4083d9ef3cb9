//! A thread that compresses and writes while the session reads rows. It calls nothing of the server, and takes no signals;
//! it ends with the pipe, however that ends.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

/// What is done with the chunks.
pub trait Sink<C>: Send {
    fn take(&mut self, chunk: C) -> io::Result<()>;
    /// All of it is on disk when this returns; gives the length of the file in bytes.
    fn finish(self: Box<Self>) -> io::Result<u64>;
}

/// To the thread.
pub struct Pipe<C> {
    sender: Option<SyncSender<C>>,
    thread: Option<JoinHandle<io::Result<u64>>>,
}

impl<C: Send + 'static> Pipe<C> {
    /// `depth` chunks may wait.
    pub fn start(mut sink: Box<dyn Sink<C>>, depth: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(depth);
        let work = move || {
            while let Ok(chunk) = receiver.recv() {
                sink.take(chunk)?;
            }
            sink.finish()
        };
        let thread = without_signals(|| Builder::new().name("archive".into()).spawn(work))?;
        Ok(Pipe {
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    /// # Errors
    /// What ended the thread.
    pub fn send(&mut self, chunk: C) -> io::Result<()> {
        match self.sender.as_ref().map(|sender| sender.send(chunk)) {
            Some(Ok(())) => Ok(()),
            _ => self.end().map(|_| ()),
        }
    }

    /// Waits until all is on disk; gives the length of the file.
    pub fn finish(mut self) -> io::Result<u64> {
        self.end()
    }

    fn end(&mut self) -> io::Result<u64> {
        self.sender = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(io::Error::other("the thread that writes has ended")),
        }
    }
}

impl<C> Drop for Pipe<C> {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // The error that led here counts, not the one that came of it.
            let _ = thread.join();
        }
    }
}

/// A thread has the signals blocked that its maker has: the server's handlers are for its main thread.
fn without_signals<T>(spawn: impl FnOnce() -> T) -> T {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: both sets are filled before they are read, and the mask is put back.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let result = spawn();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(usize);

    impl Sink<u8> for Failing {
        fn take(&mut self, _chunk: u8) -> io::Result<()> {
            self.0 += 1;
            match self.0 {
                3 => Err(io::Error::other("full")),
                _ => Ok(()),
            }
        }

        fn finish(self: Box<Self>) -> io::Result<u64> {
            Ok(self.0 as u64)
        }
    }

    #[test]
    fn an_error_of_the_thread_reaches_the_sender() {
        let mut pipe = Pipe::start(Box::new(Failing(0)), 1).unwrap();
        let error = (0..100).find_map(|n| pipe.send(n).err()).expect("it fails");
        assert_eq!(error.to_string(), "full");
    }

    #[test]
    fn what_was_sent_is_taken() {
        let mut pipe = Pipe::start(Box::new(Failing(0)), 4).unwrap();
        pipe.send(1).unwrap();
        pipe.send(2).unwrap();
        assert_eq!(pipe.finish().unwrap(), 2);
    }
}
